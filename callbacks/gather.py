"""Gather many tensors, or statistics of them, with one transfer from their device to the CPU."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Histogram(NamedTuple):
    """Counts in TensorBoard's buckets; the fields are the arguments of ``SummaryWriter.add_histogram_raw``."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper edge of each bucket
    bucket_counts: list[int]


class TensorStatistics(NamedTuple):
    """What is known of one tensor."""

    histogram: Histogram | None  # of the finite values; None if there are none
    nonfinite: int  # number of NaN and infinite values


def network_of(module: nn.Module) -> nn.Module:
    """Return what a LightningModule keeps under ``network``, or itself: tags are the names within it."""
    return getattr(module, "network", module)


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float32 on the CPU, transferred as one."""
    if not tensors:
        return {}
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors.values()]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


@cache
def bucket_edges() -> np.ndarray:
    """Return TensorBoard's bucket edges, float64 ``(1549,)``: 0, and plus and minus 1e-12 to 1e20 in steps of 10 %."""
    edges = []
    edge = 1e-12
    while edge < 1e20:
        edges.append(edge)
        edge *= 1.1
    return np.array([-edge for edge in reversed(edges)] + [0.0] + edges)


@cache
def _edges_on(device: torch.device) -> Tensor:
    """Return the edges as float32, rounded up, so that a float32 value falls into the same bucket as in float64."""
    exact = bucket_edges()
    rounded = exact.astype(np.float32)
    rounded = np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return torch.from_numpy(rounded).to(device)


@torch.no_grad()
def gather(tensors: Mapping[str, Tensor]) -> dict[str, TensorStatistics]:
    """Return histogram and count of non-finite values for each tensor.

    Values are counted on the device of the tensors (but for Apple's GPUs); what is transferred is one array, once.
    """
    if not tensors:
        return {}
    buckets = len(bucket_edges()) + 1  # one more at either end, for values beyond the edges
    counts, moments = [], []
    for tensor in tensors.values():
        values = tensor.detach().flatten()
        if values.device.type == "mps":  # Apple's GPUs have no float64
            values = values.cpu()
        values = values.float()
        finite = values.isfinite()
        zeroed = values.where(finite, 0)
        bucket = torch.bucketize(zeroed, _edges_on(values.device), right=True)
        counts.append(
            torch.zeros(buckets, dtype=torch.long, device=values.device).scatter_add_(0, bucket, finite.long())
        )
        moments.append(
            torch.stack(
                [
                    values.where(finite, torch.inf).min().double(),
                    values.where(finite, -torch.inf).max().double(),
                    zeroed.sum(dtype=torch.double),
                    zeroed.double().square().sum(),
                    finite.logical_not().sum().double(),
                ]
            )
        )
    packed = torch.cat([torch.stack(counts).double(), torch.stack(moments)], dim=1).cpu().numpy()
    return {
        name: TensorStatistics(_histogram(row[:buckets], *row[buckets:-1]), int(row[-1]))
        for name, row in zip(tensors, packed, strict=True)
    }


def _histogram(counts: np.ndarray, minimum: float, maximum: float, total: float, squares: float) -> Histogram | None:
    filled = counts.nonzero()[0]
    if len(filled) == 0:
        return None
    # TensorBoard draws from the limit before the first bucket, so that one empty bucket goes in front
    first, last = max(filled[0] - 1, 0), filled[-1]
    limits = np.append(bucket_edges(), np.finfo(np.float64).max)[first : last + 1]
    return Histogram(
        float(minimum),
        float(maximum),
        int(counts.sum()),
        float(total),
        float(squares),
        limits.tolist(),
        counts[first : last + 1].astype(int).tolist(),
    )
