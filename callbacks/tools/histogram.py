"""Compute histograms of many tensors with one transfer from their device to the CPU."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# the upper 12 bits of a float32: sign, exponent (127 more than the power of two) and 3 bits of the fraction, so that
# each power of two has eight buckets, from 2**-40, about 1e-12, to 2**64, about 2e19; TensorBoard's grow by 10 %
DROPPED = 20
FIRST, LAST = (127 - 40) << 3, (127 + 64) << 3
EDGES = (np.arange(FIRST, LAST + 1, dtype=np.int32) << DROPPED).view(np.float32).astype(float)
LIMITS = np.array([*-EDGES[::-1], *EDGES, np.finfo(np.float64).max])  # upper edge of each bucket
CHUNK = 1 << 20  # values that are counted at a time, which limits the memory for intermediate results
QUANTILES = {"minimum": 0.0, "16%": 0.1587, "median": 0.5, "84%": 0.8413, "maximum": 1.0}  # a standard deviation


class Histogram(NamedTuple):
    """Histogram of the finite values of a tensor; NaN, and empty, if it has none."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]  # upper edge of each bucket
    bucket_counts: list[int]
    nonfinite: int  # number of NaN and infinite values

    @property
    def rms(self) -> float:
        return (self.sum_squares / self.num) ** 0.5 if self.num else float("nan")

    @property
    def zeros(self) -> int:
        """Number of values that are zero, or below 1e-12 in magnitude."""
        return dict(zip(self.bucket_limits, self.bucket_counts, strict=True)).get(EDGES[0], 0)

    @property
    def quantiles(self) -> list[float]:
        """The ``QUANTILES``, if values are uniform within a bucket."""
        edges = np.clip([self.min, *self.bucket_limits], self.min, self.max)
        ranks = np.cumsum([0, *self.bucket_counts])
        return np.interp(np.array(list(QUANTILES.values())) * self.num, ranks, edges).tolist()


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Return the histogram of each tensor, with one transfer."""
    return unpack({name: count(tensor) for name, tensor in tensors.items()})


def gather_later(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Histogram]]:
    """Return a function that waits for the result of ``gather`` and returns it; it may be called in any thread.

    A device starts counting immediately. Tensors on the CPU are counted when the function is called, and must not
    change until then.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors.values()):
        return cache(lambda: gather(tensors))
    counts = {name: count(tensor) for name, tensor in tensors.items()}
    return cache(lambda: unpack(counts))


@torch.no_grad()
def count(tensor: Tensor) -> Tensor:
    """Count the values of a tensor on its device, without waiting for it.

    Returns:
        Float64 ``(len(LIMITS) + 5,)``, for ``unpack``: counts in the buckets; then minimum, maximum, sum and sum of
        squares of the finite values, and the number of other values. It is on the device, except for Apple's GPUs,
        which do not support float64.
    """
    values = (tensor.cpu() if tensor.device.type == "mps" else tensor).float().flatten()
    counts = torch.zeros(len(LIMITS) + 5, dtype=torch.double, device=values.device)
    if not len(values):
        return counts
    one, infinite = counts.new_ones(()), torch.inf
    finite = values.nan_to_num(0, 0, 0)
    for chunk in finite.split(CHUNK):
        counts.scatter_add_(0, _bucket(chunk), one.expand(len(chunk)))
    nonfinite = len(values) - values.isfinite().sum()
    counts[len(EDGES)] -= nonfinite  # they were counted as 0
    moments = (
        values.nan_to_num(infinite, infinite, infinite).min(),
        values.nan_to_num(-infinite, -infinite, -infinite).max(),
        finite.sum(dtype=torch.double),
        torch.linalg.vector_norm(finite, dtype=torch.double).square(),
        nonfinite,
    )
    counts[-5:] = torch.stack([moment.double() for moment in moments])
    return counts


def unpack(counts: Mapping[str, Tensor]) -> dict[str, Histogram]:
    """Transfer the results of ``count`` in one copy and return the histograms."""
    if not counts:
        return {}
    rows = torch.stack(list(counts.values())).cpu().numpy()
    return {name: _histogram(row[:-5], *row[-5:].tolist()) for name, row in zip(counts, rows, strict=True)}


def _bucket(values: Tensor) -> Tensor:
    """Return the bucket of each finite float32: its bit pattern, without the sign, sorts like its magnitude."""
    bits = values.view(torch.int32)
    distance = (bits & 0x7FFFFFFF).bitwise_right_shift_(DROPPED).sub_(FIRST - 1).clamp_(0, len(EDGES))
    sign = (bits >> 31).bitwise_or_(1)  # the first bit fills all others: -1 | 1 or 0 | 1
    return distance.mul_(sign).add_(len(EDGES)).long()


def _histogram(counts: np.ndarray, low: float, high: float, total: float, squares: float, other: float) -> Histogram:
    filled = counts.nonzero()[0]
    # TensorBoard draws from the previous limit, so an empty bucket is put first
    shown = slice(max(filled[0] - 1, 0), filled[-1] + 1) if len(filled) else slice(0)
    buckets = LIMITS[shown].tolist(), counts[shown].astype(int).tolist()
    return Histogram(low, high, int(counts.sum()), total, squares, *buckets, int(other))
