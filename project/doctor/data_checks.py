"""Facts about the images and labels, without the network."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from project.doctor.label_checks import label_facts

Facts = dict[str, Any]
SIDE = 8  # pixels of the reduced images, on which linear classifiers and distances are computed
MOST = 200_000_000  # pixels of cached images that are all read; of larger data, and of files, some images
SOME, MANY, LINEAR = 400, 1000, 5000  # images from files, from a cache, and for a linear classifier
CHUNK = 500
RIDGE, FOLDS = 0.1, 5  # of a linear classifier; the penalty is in units of the number of images
NEAR, PROBES = 0.2, 500  # near: a share of the usual distance between nearest neighbours
LEARNABLE = 8  # deviations from guessing, from which augmentation could take something


class Summary(NamedTuple):
    """What is kept of each image of a split."""

    small: Tensor  # (N, C, SIDE**2), reduced
    stds: Tensor  # (N,), within the reduced image
    targets: Tensor  # int64 (N,)


def data_facts(train: Any, val: Any, quick: bool = False) -> Iterator[Facts]:
    """Yield facts about the images of two loaders, one after the other; val is None without validation.

    If ``quick``, files are not compared, but only what the network receives.
    """
    most = 100 if quick and getattr(train.dataset, "transform", None) is not None else MANY  # each takes milliseconds
    received, augmented = summarize(seen(train, False, most)), summarize(seen(train, True, most))
    yield {
        "pixel_std": float(augmented.stds.mean()),
        "nonfinite_images": float((~augmented.stds.isfinite()).float().mean()),
    }
    files, is_all = plain(train) if is_readable(train) and not quick else (received, False)
    yield {"constant_images": max(float((each.stds < 1e-4).float().mean()) for each in (files, received))}
    if val is not None:
        of_val = summarize(seen(val, False, most))
        yield {"val_pixel_shift": pixel_shift(received, of_val)}
        yield label_facts(received.small, received.targets, of_val.small, of_val.targets)
    if is_all:
        counts = torch.bincount(files.targets)
        yield {
            "conflicting_duplicates": conflicting_duplicates(files),
            "imbalance": float(counts.max() / counts[counts > 0].min()),
        }
    few = some(files, LINEAR)
    yield {"linear_z": linear_z(few)}
    if (of_plain := linear_z(some(few, len(augmented.targets)))) > LEARNABLE:
        yield {"augmented_information": linear_z(augmented) / of_plain}
    if val is not None and is_readable(val) and not quick:
        val_files, _ = plain(val)
        auc, z = domain_auc(few, some(val_files, LINEAR))
        yield {"val_images": len(val.dataset), "domain_auc": auc, "domain_z": z}
        if is_all:
            yield {"near_duplicates": near_duplicates(files.small.flatten(1), val_files.small.flatten(1))}


def summarize(batches: Iterator[tuple[Tensor, Tensor]]) -> Summary:
    """Return statistics of images, uint8 or float ``(N, C, H, W)``."""
    rows = []
    for images, targets in batches:
        small = F.adaptive_avg_pool2d(images.float(), SIDE).flatten(2)
        within = small.var(2, correction=0).mean(1).sqrt()  # 0 for a constant image, also a coloured one
        rows.append((small, within, labels_of(targets)))
    return Summary(*(torch.cat(column).cpu() for column in zip(*rows, strict=True)))


def labels_of(targets: Tensor) -> Tensor:
    """Return the class of each image; of the largest share if images are mixed."""
    return targets.argmax(1) if targets.is_floating_point() else targets


def random_order(size: int, count: int | None = None) -> Tensor:
    """Return ``count`` different random numbers below a size, or all, the same in each call."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]


def some(images: Summary, count: int) -> Summary:
    """Return random images of a split."""
    return Summary(*(column[random_order(len(images.targets), count)] for column in images))


def is_readable(loader: Any) -> bool:
    """Return whether a loader can return images by their positions, as those of this project do."""
    return hasattr(loader, "render") and hasattr(getattr(loader, "dataset", None), "load")


def plain(loader: Any) -> tuple[Summary, bool]:
    """Return statistics of the images before all transforms, and whether they are all images."""
    dataset, pixels = loader.dataset, getattr(loader.dataset, "pixels", None)
    read_all = pixels is not None and len(dataset) * pixels[0].numel() <= MOST
    positions = random_order(len(dataset), None if read_all else SOME)
    return summarize(map(dataset.load, positions.split(CHUNK))), len(positions) == len(dataset)


def seen(loader: Any, augmented: bool, most: int = MANY) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of random images as the network receives them, with or without transforms of whole batches."""
    if not is_readable(loader):  # of another DataModule: the first batches
        count = 0
        for images, targets, *_ in loader:
            yield images, targets
            if (count := count + len(images)) >= SOME:
                return
        return
    loader = copy.copy(loader)
    if not augmented and hasattr(loader.transform, "normalize"):
        loader.transform = type(loader.transform)([], loader.transform.normalize)
    most = min(most, SOME) if loader.dataset.pixels is None else most
    for positions in random_order(len(loader.dataset), most).split(CHUNK):
        images, targets = loader.render(positions, 0)
        yield (images[:, 0] if images.ndim == 5 else images), targets  # the first of several views


def pixel_shift(train: Summary, val: Summary) -> float:
    """Return how far the values of val are from those of train: the largest of each channel and of red minus blue.

    It is the distance between two distributions, in standard deviations: mean, scale and exchanged colours show in it.
    """
    colors = [torch.cat([each.small, each.small[:, :1] - each.small[:, -1:]], 1) for each in (train, val)]
    levels, shifts = torch.linspace(0.01, 0.99, 99), [0.0]
    for first, second in zip(*(each.transpose(0, 1).flatten(1) for each in colors), strict=True):
        if first.std() > 1e-3:  # not red minus blue of grey images
            shifts.append(float((first.quantile(levels) - second.quantile(levels)).abs().mean() / first.std()))
    return max(shifts)


def conflicting_duplicates(images: Summary) -> float:
    """Return the share of images that equal another one, if reduced, with another label."""
    rows = images.small.flatten(1).double()
    keys = torch.rand(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, group = (rows * keys).sum(1).unique(return_inverse=True)
    labelled = torch.stack([group, images.targets]).unique(dim=1)
    return float((torch.bincount(labelled[0])[group] > 1).float().mean())


def held_out_scores(x: Tensor, y: Tensor) -> Tensor:
    """Return the scores of each image by a linear classifier of the other folds, in closed form."""
    x = x.flatten(1).double()
    x = torch.cat([(x - x.mean(0)) / (x.std(0) + 1e-9), torch.ones(len(x), 1)], 1)
    fold, result = random_order(len(x)) % FOLDS, torch.zeros_like(y)
    for number in range(FOLDS):
        known, targets = x[fold != number], y[fold != number]
        penalty = RIDGE * len(known) * torch.eye(x.shape[1], dtype=x.dtype)
        result[fold == number] = x[fold == number] @ torch.linalg.solve(known.T @ known + penalty, known.T @ targets)
    return result


def linear_z(train: Summary) -> float:
    """Return by how many deviations a linear classifier is better than guessing on held-out images."""
    classes = int(train.targets.max()) + 1
    predicted = held_out_scores(train.small, F.one_hot(train.targets, classes).double()).argmax(1)
    accuracy = float((predicted == train.targets).float().mean())
    shares = (torch.bincount(part, minlength=classes) / len(part) for part in (predicted, train.targets))
    guessed = float(torch.stack([*shares]).prod(0).sum())
    return (accuracy - guessed) / max((guessed * (1 - guessed) / len(predicted)) ** 0.5, 1e-9)


def domain_auc(train: Summary, val: Summary) -> tuple[float, float]:
    """Return how well a linear classifier separates train from val, .5 to 1, and its distance from .5 in deviations."""
    n, m = len(train.small), len(val.small)
    y = torch.cat([-torch.ones(n, 1), torch.ones(m, 1)]).double()
    ranks = held_out_scores(torch.cat([train.small, val.small]), y)[:, 0].argsort().argsort().double() + 1
    auc = float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))
    return auc, (auc - 0.5) / ((n + m + 1) / (12 * n * m)) ** 0.5


def near_duplicates(train: Tensor, val: Tensor) -> float:
    """Return the share of val whose nearest training image is far nearer than those of training images are."""
    chosen = random_order(len(train), PROBES)
    within = torch.cdist(train[chosen], train)
    within[torch.arange(len(chosen)), chosen] = float("inf")
    found = torch.cdist(val[random_order(len(val), PROBES)], train).amin(1)
    return float((found < NEAR * within.amin(1).median()).float().mean())
