"""Accuracy of classification by the nearest neighbour."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

CHUNK = 1024  # images whose distances to all others are computed at once: 40 MB with 10,000 others


class NearestNeighborAccuracy(Metric):
    """Fraction of embeddings whose nearest neighbour among all others has the same class (leave-one-out).

    ``update`` takes embeddings, float ``(N, D)``, and targets, int64 ``(N,)``.
    """

    embeddings: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, targets: Tensor) -> None:
        self.embeddings.append(embeddings.detach().float())
        self.targets.append(targets)

    def compute(self) -> Tensor:
        embeddings, targets = dim_zero_cat(self.embeddings), dim_zero_cat(self.targets)
        right = torch.zeros((), device=targets.device)
        # matrix products are seven times as fast on a CPU, but a GPU may compute them with the low precision of TF32
        mode = "use_mm_for_euclid_dist" if targets.device.type == "cpu" else "donot_use_mm_for_euclid_dist"
        for start in range(0, len(targets), CHUNK):
            distances = torch.cdist(embeddings[start : start + CHUNK], embeddings, compute_mode=mode)
            distances.diagonal(start).fill_(torch.inf)  # exclude the image itself
            right += (targets[distances.argmin(1)] == targets[start : start + CHUNK]).sum()
        return right / len(targets)
