"""Mine pairs and triplets of a batch for losses on embeddings, without synchronising with the device."""

import torch
from torch import Tensor


def all_pairs(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pair of a batch once: both indices, and 1 for the same class or -1 for different ones, ``(P,)``."""
    first, second = torch.triu_indices(len(targets), len(targets), 1, device=targets.device)
    return first, second, 2 * (targets[first] == targets[second]).long() - 1


def batch_hard(distances: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each image's triplet with the furthest image of its class and the nearest of another class.

    Hermans et al., 2017, "In defense of the triplet loss for person re-identification".

    Args:
        distances: Distances between all images of a batch, ``(N, N)``.
        targets: Class of each image, int64 ``(N,)``.

    Returns:
        Indices of the positive and the negative of each image, and a mask of valid triplets, bool, each ``(N,)``: the
        shapes do not depend on the targets, to avoid synchronisation.
    """
    positive, negative = _positives_and_negatives(targets)
    furthest = distances.masked_fill(~positive, -1).argmax(1)
    nearest = distances.masked_fill(~negative, torch.inf).argmin(1)
    return furthest, nearest, positive.any(1) & negative.any(1)


def semi_hard(distances: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each image's triplet with a random image of its class and the nearest negative that is further away.

    If no negative is further away, the furthest is used. Arguments and results are those of ``batch_hard``. After
    Schroff et al., 2015, "FaceNet: a unified embedding for face recognition and clustering".
    """
    positive, negative = _positives_and_negatives(targets)
    positives = torch.rand_like(distances).masked_fill(~positive, -1).argmax(1, keepdim=True)
    further = negative & (distances > distances.gather(1, positives))
    nearest = distances.masked_fill(~further, torch.inf).argmin(1)
    furthest = distances.masked_fill(~negative, -1).argmax(1)
    negatives = torch.where(further.any(1), nearest, furthest)
    return positives.squeeze(1), negatives, positive.any(1) & negative.any(1)


def _positives_and_negatives(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of other images of the same class and of images of another class, both bool ``(N, N)``."""
    same = targets[:, None] == targets
    return same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device), ~same
