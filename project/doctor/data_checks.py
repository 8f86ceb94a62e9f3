"""Facts about the images and labels, without the network."""

import copy
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from callbacks.tools.probes import batches
from project.doctor.symptoms import READABLE, Facts, deviation

Images = tuple[Tensor, Tensor]  # (N, C, SIDE**2), reduced, and their classes, int64 (N,)
SIDE = 8  # pixels of the reduced images, on which linear classifiers and distances are computed
PATTERNS, FINE, PATCH = 64, 32, 8  # local patterns, on images of at most 32 pixels; their side
MOST = 200_000_000  # pixels of cached images that are all read; of larger data, and of files, some images
MIDDLE = torch.arange(SIDE**2).view(SIDE, SIDE)[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4].flatten()
SOME, MANY = 400, 1000  # images from files, and from a cache
FOREIGN = 8  # batches of a loader that is not of this project
CHUNK = 500
NEAR, PROBES = 0.2, 500  # near: a share of the usual distance between nearest neighbours
RIDGE, FOLDS = 0.1, 5  # of linear classifiers; the penalty is in units of the number of images
LEARNABLE = 8  # deviations from guessing, from which augmentation could take something
CLEAR = 5  # deviations from guessing, from which splits are different


def data_facts(train: Any, val: Any, quick: bool = False) -> Iterator[Facts]:
    """Yield facts about the images of two loaders, one after the other; val is None without validation.

    If ``quick``, files are not compared, but only what the network receives.
    """
    most = 100 if quick and getattr(train.dataset, "transform", None) is not None else MANY  # each takes milliseconds
    fine, targets, sharpness = observed(seen(train, False, most))
    received, augmented = (F.adaptive_avg_pool2d(fine, SIDE).flatten(2), targets), reduced(seen(train, True, most))
    of_plain, of_augmented = (deviation_within(each) for each, _ in (received, augmented))
    yield {
        "constant_images": float((of_plain < 1e-4).float().mean()),
        "nonfinite_images": float((~of_augmented.isfinite()).float().mean()),
        "pixel_std": float(of_augmented.mean()),
        # a black border around images that are nearly constant has a large deviation
        "middle_std": float(deviation_within(augmented[0][:, :, MIDDLE]).mean()),
    }
    if val is not None:
        val_fine, val_targets, val_sharpness = observed(seen(val, False, most))
        of_val = F.adaptive_avg_pool2d(val_fine, SIDE).flatten(2)
        yield {"val_pixel_shift": pixel_shift(received[0], of_val), "val_sharpness": val_sharpness / sharpness}
        yield linear_facts(*received, of_val, val_targets)
    yield {"linear_z": (learned := linear_skill(*received)[1])}
    yield {"readable_z": max(learned, linear_skill(patterns(fine), targets)[1] if learned < READABLE else 0)}
    if learned > LEARNABLE:
        yield {"augmented_information": linear_skill(*augmented)[1] / learned}
    if is_readable(train):
        yield copies_facts(train.dataset, val.dataset if val is not None and is_readable(val) else None)
    if quick or not is_readable(train):
        return
    files, is_all = plain(train)
    if val is not None and is_readable(val):
        val_files, _ = plain(val)
        count = min(len(files[0]), len(val_files[0]), 5 * MANY)
        both = torch.cat([images[random_order(len(images), count)] for images, _ in (files, val_files)])
        accuracy, z = linear_skill(both, torch.arange(2).repeat_interleave(count))
        yield {"val_images": len(val.dataset), "split_accuracy": accuracy if z > CLEAR else 0.5}
        if is_all:
            yield {"near_duplicates": near_duplicates(files[0].flatten(1), val_files[0].flatten(1))}


def reduced(parts: Iterator[tuple[Tensor, Tensor]]) -> Images:
    """Return the reduced images and the classes of batches, uint8 or float ``(N, C, H, W)``."""
    rows = [(F.adaptive_avg_pool2d(images.float(), SIDE).flatten(2), labels_of(targets)) for images, targets in parts]
    images, targets = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return images, targets


def observed(parts: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, float]:
    """Return images of at most 32 pixels, the classes, and the mean difference of neighbours in a row over contrast."""
    rows = []
    for images, targets in parts:
        values = images.float()
        differences, contrast = values.diff(dim=3).square().mean((1, 2, 3)), values.var((2, 3)).mean(1).clamp_min(1e-9)
        fine = F.adaptive_avg_pool2d(values, min(FINE, *values.shape[2:]))
        rows.append((fine, labels_of(targets), (differences / contrast).sqrt()))
    images, targets, sharpness = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return images, targets, float(sharpness.mean().clamp_min(1e-9))


def patterns(images: Tensor) -> Tensor:
    """Return in which quarter of each image random patches of images occur: features for images without a fixed place.

    Coates, Ng and Lee (2011) classify by such features, of patches that are not trained.
    """
    size = min(PATCH, *images.shape[2:])
    images = (images - images.mean()) / (images.std() + 1e-9)
    some = images[random_order(len(images), PATTERNS)]
    patches = F.unfold(some, size).transpose(1, 2).flatten(0, 1)  # (N, C * size * size)
    patches = patches - patches.mean(1, keepdim=True)
    clear = patches[patches.norm(dim=1).argsort(descending=True)[: len(patches) // 2]]  # not of a plain background
    clear = clear[random_order(len(clear), PATTERNS)]
    filters = F.normalize(clear).view(-1, images.shape[1], size, size)
    return torch.cat([F.adaptive_avg_pool2d(F.conv2d(each, filters).relu(), 2) for each in images.split(CHUNK)])


def deviation_within(images: Tensor) -> Tensor:
    """Return the standard deviation within each reduced image; 0 for a constant one, also a coloured one."""
    return images.var(2, correction=0).mean(1).sqrt()


def labels_of(targets: Tensor) -> Tensor:
    """Return the class of each image; of the largest share if images are mixed."""
    return targets.argmax(1) if targets.is_floating_point() else targets


def random_order(size: int, count: int | None = None) -> Tensor:
    """Return ``count`` different random numbers below a size, or all, the same in each call."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]


def is_readable(loader: Any) -> bool:
    """Return whether a loader can return images by their positions, as those of this project do."""
    return hasattr(loader, "render") and hasattr(getattr(loader, "dataset", None), "load")


def plain(loader: Any) -> tuple[Images, bool]:
    """Return the images before all transforms, and whether they are all images."""
    dataset, pixels = loader.dataset, loader.dataset.pixels
    is_all = pixels is not None and len(dataset) * pixels[0].numel() <= MOST
    positions = random_order(len(dataset), None if is_all else SOME)
    return reduced(map(dataset.load, positions.split(CHUNK))), is_all


def seen(loader: Any, augmented: bool, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return batches of random images as the network receives them, with or without transforms of whole batches."""
    if not is_readable(loader):  # of another DataModule
        return ((images, targets) for images, targets, *_ in islice(loader, FOREIGN))
    loader = copy.copy(loader)
    if not augmented and hasattr(loader.transform, "normalize"):
        loader.transform = type(loader.transform)([], loader.transform.normalize)
    return batches(loader, loader.dataset, min(most, SOME) if loader.dataset.pixels is None else most, 0)


def pixel_shift(train: Tensor, val: Tensor) -> float:
    """Return how far the values of val are from those of train: the largest of each channel and of red minus blue.

    It is the distance between two distributions, in standard deviations: mean, scale and exchanged colours show in it.
    """
    colors = [torch.cat([each, each[:, :1] - each[:, -1:]], 1).transpose(0, 1).flatten(1) for each in (train, val)]
    levels, least = torch.linspace(0.01, 0.99, 99), 0.1 * train.std()  # red minus blue of grey images is 0
    shifts = []
    for first, second in zip(*colors, strict=True):
        distance = (first.quantile(levels) - second.quantile(levels)).abs().mean()
        shifts.append(float(distance / torch.maximum((first.std() + second.std()) / 2, least)))
    return max(shifts)


def copies_facts(train: Any, val: Any) -> Facts:
    """Return how many cached images of a split have the same pixels as others, and how many of val are in train."""
    codes, of_val = fingerprints(train), None if val is None else fingerprints(val)
    if codes is None:
        return {}
    different, group, counts = codes.unique(return_inverse=True, return_counts=True)
    labelled = torch.stack([group, train.targets.cpu()]).unique(dim=1)
    facts: Facts = {
        "conflicting_duplicates": float((torch.bincount(labelled[0])[group] > 1).float().mean()),
        "copies": 1 - len(different) / len(codes),
        "distinct_images": len(different),
        "most_copies": int(counts.max()),
    }
    return facts if of_val is None else facts | {"val_copies": float(torch.isin(of_val, codes).float().mean())}


def fingerprints(dataset: Any) -> Tensor | None:
    """Return a number for the pixels of each image, int64 ``(N,)``; None if they are not cached, or are many."""
    if dataset.pixels is None or len(dataset.targets) * dataset.pixels[0].numel() > MOST:
        return None
    size, codes = dataset.pixels[0].numel(), []
    keys = torch.randint(-(2**62), 2**62, (-(-size // 8),), generator=torch.Generator().manual_seed(0))
    for positions in torch.arange(len(dataset.targets)).split(CHUNK):
        rows = F.pad(dataset.load(positions)[0].flatten(1).cpu(), (0, -size % 8)).view(torch.int64)
        codes.append((rows * keys).sum(1))  # modulo 2**64
    return torch.cat(codes)


def near_duplicates(train: Tensor, val: Tensor) -> float:
    """Return the share of val whose nearest training image is far nearer than those of training images are."""
    chosen = random_order(len(train), PROBES)
    within = torch.cdist(train[chosen], train).scatter(1, chosen[:, None], torch.inf).amin(1)  # not the image itself
    across = torch.cdist(val[random_order(len(val), PROBES)], train).amin(1)
    return float((across < NEAR * within.median()).float().mean())


def linear_facts(train: Tensor, targets: Tensor, val: Tensor, val_targets: Tensor) -> Facts:
    """Return whether linear classifiers, which hardly memorise, are as good on val as on images of train not seen.

    They are better on val if labels of train are wrong, and much worse if images of train show their class by a mark.
    """
    classes = max(int(torch.cat([targets, val_targets]).max()) + 1, 2)
    own, of_val = classified(train, targets, val)
    accs = [float((own == targets).double().mean()), float((of_val == val_targets).double().mean())]
    noise = deviation(accs[0], accs[1], [1 / len(train), 1 / len(val)])
    skills = [max(acc - 1 / classes, 0.0) / (1 - 1 / classes) for acc in accs]
    return {"linear_gap_z": (accs[0] - accs[1]) / noise, "linear_skills": skills}


def linear_skill(images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the accuracy of a linear classifier on held-out images, and its distance from guessing in deviations."""
    predicted, _ = classified(images, targets, images)
    counts = [torch.bincount(each, minlength=int(targets.max()) + 1).double() for each in (targets, predicted)]
    accuracy, guessed = float((predicted == targets).double().mean()), float(counts[0] @ counts[1]) / len(targets) ** 2
    return accuracy, (accuracy - guessed) / max((guessed * (1 - guessed) / len(targets)) ** 0.5, 1e-9)


def classified(images: Tensor, targets: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes that ridge regression predicts: of each image from four fifths without it, and of others.

    Of N images and M others, the shapes are ``(N,)`` and ``(5, M)``, because there are five classifiers.
    """
    x, of_others = (
        torch.cat([(rows - rows.mean(0)) / (rows.std(0) + 1e-9), torch.ones(len(rows), 1)], 1)
        for rows in (images.flatten(1).double(), others.flatten(1).double())  # each by its own mean and scale
    )
    part, own, rest = random_order(len(x)) % FOLDS, torch.empty_like(targets), []
    for number in range(FOLDS):
        known, labels = x[part != number], F.one_hot(targets).double()[part != number]
        penalty = RIDGE * len(known) * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(known.T @ known + penalty, known.T @ labels)
        own[part == number] = (x[part == number] @ weights).argmax(1)
        rest.append((of_others @ weights).argmax(1))
    return own, torch.stack(rest)


def name_facts(names: Sequence[str]) -> Facts:
    """Return how many classes have the name of another one but for case, punctuation or a final s."""
    known, pairs = dict[str, str](), []
    for name in names:
        key = re.sub(r"[\W_]", "", name.lower()).removesuffix("s")
        if len(key) > 2 and key in known:
            pairs.append(f"{known[key]} and {name}")
        known[key] = name
    return {"similar_names": len(pairs), "similar_pair": ", ".join(pairs[:3])}
