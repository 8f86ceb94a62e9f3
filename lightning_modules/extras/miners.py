"""Pairs and triplets of a batch, for losses of embeddings, without a look at any value on the device."""

import torch
from torch import Tensor


def all_pairs(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pair of a batch once: indices ``(P,)`` of both, and 1 for one class or -1 for two, ``(P,)``."""
    first, second = torch.triu_indices(len(targets), len(targets), 1, device=targets.device)
    return first, second, 2 * (targets[first] == targets[second]).long() - 1


def batch_hard(distances: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return each image's triplet with the furthest of its class and the nearest of the others.

    Args:
        distances: Between all images of a batch, ``(N, N)``.
        targets: Their classes, int64 ``(N,)``.

    Returns:
        Indices of anchors, positives and negatives, and whether there are such, bool, each ``(N,)``: as many whatever
        the targets, so that the device need not be waited for.
    """
    positive, negative = _positives_and_negatives(targets)
    return (
        torch.arange(len(targets), device=targets.device),
        distances.masked_fill(~positive, -1).argmax(1),
        distances.masked_fill(~negative, torch.inf).argmin(1),
        positive.any(1) & negative.any(1),
    )


def semi_hard(distances: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return each image's triplet with a random one of its class and the nearest negative that is further away.

    Where none is further away, the furthest is taken. Takes and returns what ``batch_hard`` does.
    """
    positive, negative = _positives_and_negatives(targets)
    positives = torch.rand_like(distances).masked_fill(~positive, -1).argmax(1, keepdim=True)
    further = negative & (distances > distances.gather(1, positives))
    nearest = distances.masked_fill(~further, torch.inf).argmin(1)
    furthest = distances.masked_fill(~negative, -1).argmax(1)
    return (
        torch.arange(len(targets), device=targets.device),
        positives.squeeze(1),
        torch.where(further.any(1), nearest, furthest),
        positive.any(1) & negative.any(1),
    )


def _positives_and_negatives(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which other images are of an image's class, and which are not, both bool ``(N, N)``."""
    same = targets[:, None] == targets
    return same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device), ~same
