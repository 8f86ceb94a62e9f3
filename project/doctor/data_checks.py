"""Facts about the images and labels, without the network."""

from typing import Any

import torch
from torch import Tensor

from project.doctor.images import Summary, is_readable, labels_of, plain, seen, summarize

Facts = dict[str, Any]
RIDGE = 0.1  # penalty, in units of the number of images
FOLDS = 5
NEAR = 0.2  # of the typical distance between nearest neighbours
LINEAR = 5000  # images of a split for a linear classifier
PROBES = 500  # images whose nearest neighbours are searched
PER_CLASS = 20  # images of each class in val that its labels need


def data_facts(train: Any, val: Any, mean: Any, std: Any) -> Facts:
    """Return facts about the images of two loaders; val is None without validation.

    Args:
        train: Loader of training images.
        val: Loader of validation images.
        mean: Mean that normalises the images, ``(3, 1, 1)``.
        std: Standard deviation that normalises them.
    """
    facts: Facts = {}
    train_seen = summarize(seen(train, augmented=False))
    facts["pixel_std"] = train_seen.std
    facts["nonfinite_images"] = float((~train_seen.means.isfinite().all(1)).float().mean())
    train_plain, is_all = plain(train) if is_readable(train) else (train_seen, False)
    facts["constant_images"] = float((train_plain.stds == 0).float().mean())
    counts = torch.bincount(train_plain.targets)
    if is_all:
        facts["conflicting_duplicates"] = conflicting_duplicates(train.dataset)
        facts["imbalance"] = float(counts.max() / counts[counts > 0].min())
    few = some(train_plain)
    facts["linear_z"] = linear_z(few)
    if val is None:
        return facts
    val_seen = summarize(seen(val, augmented=False))
    facts |= comparison(train_seen, val_seen)
    trained = summarize(seen(train, augmented=True))
    facts["augmented_std_ratio"] = either_way(trained.std / val_seen.std)
    if mean is not None and mean.numel() == 3:
        # in the colours of the images, because normalised channels all have a mean of 0
        colors = [each.means * std.flatten().cpu() + mean.flatten().cpu() for each in (train_seen, val_seen)]
        facts["channel_swap"] = channel_swap(*colors)
    if is_readable(val):
        val_plain, _ = plain(val)
        facts["val_images"] = len(val.dataset)
        facts["domain_auc"], facts["domain_z"] = domain_auc(few, some(val_plain))
        facts["permuted_labels"] = permuted_labels(few, some(val_plain))
        if is_all:
            facts["near_duplicates"] = near_duplicates(train_plain.small, val_plain.small)
    return facts


def some(images: Summary) -> Summary:
    """Return random images of a split for a linear classifier."""
    chosen = torch.randperm(len(images.targets), generator=torch.Generator().manual_seed(0))[:LINEAR]
    return Summary(*(column[chosen] for column in images))


def either_way(ratio: float) -> float:
    """Return a ratio, or its inverse if that is larger."""
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")


def comparison(train: Summary, val: Summary) -> Facts:
    """Return how the values that the network receives differ between train and val."""
    shift = (train.means.mean(0) - val.means.mean(0)).abs().max() / train.std
    return {"val_std_ratio": either_way(val.std / train.std), "val_mean_shift": float(shift)}


def channel_swap(train: Tensor, val: Tensor) -> float:
    """Return by how many standard errors red minus blue of val is nearer to blue minus red of train; 0 if it is not.

    Args:
        train: Mean of R, G and B of each image, ``(N, 3)``.
        val: The same of validation images.
    """
    first, second = train[:, 0] - train[:, 2], val[:, 0] - val[:, 2]
    error = float((first.var() / len(first) + second.var() / len(second)).sqrt())
    if error < 1e-6:  # grey images
        return 0.0
    same, swapped = (abs(float(second.mean() - sign * first.mean())) / error for sign in (1, -1))
    distance = [float((val.mean(0) - colors).norm()) for colors in (train.mean(0), train.mean(0).flip(0))]
    return same if swapped < 4 and swapped < same / 2 and distance[1] < distance[0] / 2 else 0.0


def conflicting_duplicates(dataset: Any) -> float:
    """Return the share of images of which another has the same pixels and another label."""
    generator = torch.Generator().manual_seed(0)
    key = torch.randint(-(2**62), 2**62, (dataset.load(torch.arange(1))[0].numel(),), generator=generator)
    parts = torch.arange(len(dataset)).split(256)
    digests = [dataset.load(part)[0].flatten(1).cpu().long() @ key for part in parts]  # modulo 2**64
    _, group = torch.cat(digests).unique(return_inverse=True)
    labels = labels_of(dataset.targets).cpu()
    low, high = (
        torch.zeros(len(group), dtype=labels.dtype).scatter_reduce_(0, group, labels, how, include_self=False)
        for how in ("amin", "amax")
    )
    return float((low != high)[group].float().mean())


def ridge(x: Tensor, y: Tensor) -> Tensor:
    """Return the weights of a linear classifier with an intercept, in closed form."""
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    return torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)


def scores(weights: Tensor, x: Tensor) -> Tensor:
    """Return the scores of each class."""
    return x @ weights[:-1] + weights[-1]


def standardized(x: Tensor) -> Tensor:
    """Return features of mean 0 and standard deviation 1, so that another scale of a split does not matter."""
    x = x.double()
    return (x - x.mean(0)) / (x.std(0) + 1e-6 * (x.std() + 1e-12))


def held_out_scores(x: Tensor, y: Tensor) -> Tensor:
    """Return the scores of each image by a linear classifier of the other folds."""
    fold = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)) % FOLDS
    result = torch.zeros_like(y)
    for number in range(FOLDS):
        result[fold == number] = scores(ridge(x[fold != number], y[fold != number]), x[fold == number])
    return result


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """Return targets for ``ridge``."""
    return torch.nn.functional.one_hot(targets, classes).double()


def linear_z(train: Summary) -> float:
    """Return by how many deviations a linear classifier is better than guessing on held-out images."""
    classes = int(train.targets.max()) + 1
    predicted = held_out_scores(standardized(train.small), one_hot(train.targets, classes)).argmax(1)
    accuracy = float((predicted == train.targets).float().mean())
    shares = (torch.bincount(part, minlength=classes) / len(part) for part in (predicted, train.targets))
    guessed = float(torch.stack([*shares]).prod(0).sum())
    return (accuracy - guessed) / max((guessed * (1 - guessed) / len(predicted)) ** 0.5, 1e-9)


def permuted_labels(train: Summary, val: Summary) -> float | None:
    """Return how much accuracy the best permutation of classes adds on val; None if there are too few images."""
    classes = int(max(train.targets.max(), val.targets.max())) + 1
    if torch.bincount(val.targets, minlength=classes).min() < PER_CLASS:
        return None
    weights = ridge(standardized(train.small), one_hot(train.targets, classes))
    predicted = scores(weights, standardized(val.small)).argmax(1)
    confusion = torch.bincount(val.targets * classes + predicted, minlength=classes**2).view(classes, classes)
    right, renamed = int(confusion.trace()), 0
    for _ in range(classes):  # match the most frequent pairs first
        best = int(confusion.argmax())
        renamed += int(confusion.flatten()[best])
        confusion[best // classes], confusion[:, best % classes] = -1, -1
    return (renamed - right) / len(val.targets)


def domain_auc(train: Summary, val: Summary) -> tuple[float, float]:
    """Return how well a linear classifier separates train from val, .5 to 1, and its distance from .5 in deviations."""
    x = torch.cat([train.small, val.small])
    y = torch.cat([torch.zeros(len(train.small)), torch.ones(len(val.small))]).double()
    n, m = len(train.small), len(val.small)
    result = held_out_scores(standardized(x), 2 * y[:, None] - 1)[:, 0]
    ranks = result.argsort().argsort().double() + 1
    auc = float((ranks[y == 1].sum() - m * (m + 1) / 2) / (n * m))
    return auc, (auc - 0.5) / ((n + m + 1) / (12 * n * m)) ** 0.5


def near_duplicates(train: Tensor, val: Tensor) -> float:
    """Return the share of val whose nearest training image is far nearer than those of training images are."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(train), generator=generator)[:PROBES]
    probes = torch.randperm(len(val), generator=generator)[:PROBES]
    within = torch.cdist(train[chosen], train)
    within[torch.arange(len(chosen)), chosen] = float("inf")
    usual = within.amin(1).median()
    return float((torch.cdist(val[probes], train).amin(1) < NEAR * usual).float().mean())
