"""Compute histograms and statistics of many tensors with one transfer from their device to the CPU."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial, reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 18  # values that are counted at a time, so that intermediate results fit into the processor's cache
LARGE = 1 << 13  # number of values on the CPU from which counting by bit patterns is faster than searching
GROUP = 1 << 22  # values that are searched at a time, which needs about 200 MB
LOWER = 19  # dropped bits of a float32; the other 13 are sign, exponent and 4 of the fraction: steps of 3 to 6 %
PATTERNS = 1 << 32 - LOWER
INFINITE = 0x7F800000 >> LOWER  # pattern of positive infinity and NaNs


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
    """Statistics of one tensor."""

    histogram: Histogram | None  # of the finite values; None if there are none
    nonfinite: int  # number of NaN and infinite values

    @property
    def rms(self) -> float:
        """Root mean square of the finite values; NaN if there are none."""
        return (self.histogram.sum_squares / self.histogram.num) ** 0.5 if self.histogram else float("nan")


def gather(tensors: Mapping[str, Tensor]) -> dict[str, TensorStatistics]:
    """Return the histogram and the number of non-finite values of each tensor, with one transfer."""
    return unpack(tensors, count(tensors.values()))


def gather_later(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, TensorStatistics]]:
    """Return a function that waits for the result of ``gather`` and returns it; it may be called in any thread.

    A device starts counting immediately. Tensors on the CPU are counted when the function is called, and must not
    change until then.
    """
    names, values = list(tensors), list(tensors.values())
    if all(tensor.device.type == "cpu" for tensor in values):
        return cache(lambda: unpack(names, count(values)))
    rows = count(values)
    return cache(lambda: unpack(names, rows))


@cache
def bucket_edges() -> np.ndarray:
    """Return TensorBoard's bucket edges, float64 ``(1549,)``: 0, and plus and minus 1e-12 to 1e20 in steps of 10 %."""
    edges = []
    edge = 1e-12
    while edge < 1e20:
        edges.append(edge)
        edge *= 1.1
    return np.array([-edge for edge in reversed(edges)] + [0.0] + edges)


@torch.no_grad()
def count(tensors: Iterable[Tensor]) -> Tensor:
    """Count the values of tensors on their device, without waiting for it.

    Returns:
        Float64 ``(len(tensors), 1555)``, for ``unpack``: counts in TensorBoard's buckets and beyond them at both ends,
        then minimum, maximum, sum and sum of squares of the finite values, and the number of other values. It is on the
        device, except for Apple's GPUs, which do not support float64.
    """
    flat = [_flat(tensor.detach()) for tensor in tensors]
    flat = [(values.cpu() if values.device.type == "mps" else values).float() for values in flat]
    large = [index for index, values in enumerate(flat) if values.device.type == "cpu" and len(values) >= LARGE]
    scratch = torch.empty(2, CHUNK if large else 0, dtype=torch.int32)
    rows = {index: _count_by_pattern(flat[index], scratch) for index in large}
    pieces = [(index, piece) for index in range(len(flat)) if index not in rows for piece in flat[index].split(GROUP)]
    while pieces:
        sizes = np.cumsum([len(piece) for _, piece in pieces])
        group = pieces[: int((sizes <= GROUP).sum())]
        pieces = pieces[len(group) :]
        for (index, _), row in zip(group, _count_by_search([piece for _, piece in group]), strict=True):
            rows[index] = _added(rows[index], row) if index in rows else row
    return torch.stack([rows[index] for index in range(len(flat))]) if flat else torch.empty(0, 0)


def unpack(names: Sequence[str] | Mapping[str, Tensor], rows: Tensor) -> dict[str, TensorStatistics]:
    """Transfer the result of ``count`` and return the statistics by the names of the tensors."""
    return {
        name: TensorStatistics(_histogram(row[:-5], *row[-5:-1]), int(row[-1]))
        for name, row in zip(names, rows.cpu().numpy(), strict=True)
    }


def _flat(tensor: Tensor) -> Tensor:
    """Flatten a tensor in memory order, which needs no copy for ``channels_last`` either."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor.permute(order).flatten()


def _added(row: Tensor, other: Tensor) -> Tensor:
    """Merge the rows of two parts of a tensor."""
    least, largest = torch.minimum(row[-5:-4], other[-5:-4]), torch.maximum(row[-4:-3], other[-4:-3])
    return torch.cat([row[:-5] + other[:-5], least, largest, row[-3:] + other[-3:]])


def _count_by_search(tensors: Sequence[Tensor]) -> Tensor:
    """Count several one-dimensional tensors at once with few large operations."""
    values = torch.cat(list(tensors))
    lengths = torch.tensor([len(tensor) for tensor in tensors], pin_memory=values.is_cuda)
    lengths = lengths.to(values.device, non_blocking=True)
    segmented = partial(torch.segment_reduce, lengths=lengths, unsafe=True)  # checking the lengths would synchronise
    buckets = len(bucket_edges()) + 1
    segment = torch.arange(len(tensors), device=values.device)
    segment = segment.repeat_interleave(lengths, output_size=len(values))
    finite = values.isfinite()
    zeroed = values.where(finite, 0)
    bucket = torch.bucketize(zeroed, _edges_on(values.device), right=True) + segment * buckets
    counts = torch.zeros(len(tensors) * buckets, dtype=torch.long, device=values.device)
    counts.scatter_add_(0, bucket, finite.long())
    moments = [
        segmented(values.where(finite, torch.inf), "min"),
        segmented(values.where(finite, -torch.inf), "max"),
        segmented(zeroed.double(), "sum"),
        segmented(zeroed.double().square(), "sum"),
        segmented(finite.logical_not().double(), "sum"),
    ]
    return torch.cat([counts.double().view(-1, buckets), torch.stack(moments, 1).double()], dim=1)


@cache
def _edges_on(device: torch.device) -> Tensor:
    """Return the edges as float32, rounded up so that a float32 value is in the same bucket as with float64 edges."""
    return torch.from_numpy(_rounded_up(bucket_edges())).to(device)


def _rounded_up(exact: np.ndarray) -> np.ndarray:
    rounded = exact.astype(np.float32)
    return np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)


def _count_by_pattern(values: Tensor, scratch: Tensor) -> Tensor:
    """Count float32 values on the CPU by the upper bits of their patterns, which sort like their magnitudes.

    Nearly half of the ranges of patterns contain an edge of TensorBoard's buckets. An addition moves the values above
    the edge to the next pattern before the lower bits are dropped, so that the counts are exact.
    """
    moves, _, _ = _pattern_table()
    counts = torch.zeros(PATTERNS, dtype=torch.long)
    pattern, moved = scratch
    chunks = []
    for chunk in values.split(CHUNK):
        bits, key, move = chunk.view(torch.int32), pattern[: len(chunk)], moved[: len(chunk)]
        torch.bitwise_right_shift(bits, LOWER, out=key).bitwise_and_(PATTERNS - 1)
        torch.index_select(moves, 0, key, out=move)
        torch.add(bits, move, out=key).bitwise_right_shift_(LOWER).bitwise_and_(PATTERNS - 1)
        counts += torch.bincount(key, minlength=PATTERNS)
        chunks.append(torch.stack([*chunk.aminmax(), chunk.sum(), chunk.dot(chunk)]))
    low, high, sums, squares = torch.stack(chunks).double().T
    nonfinite = counts[INFINITE : PATTERNS // 2].any() or counts[PATTERNS // 2 + INFINITE :].any()
    if nonfinite or not squares.isfinite().all():  # or the squares overflow float32
        return reduce(_added, (_count_by_search([part])[0] for part in values.split(GROUP)))
    moments = torch.stack([low.min(), high.max(), sums.sum(), squares.sum(), torch.zeros((), dtype=torch.double)])
    return torch.cat([_buckets_of_patterns(counts), moments])


@cache
def _pattern_table() -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return the offset for the values of each pattern, and the first pattern of each bucket for both signs.

    Buckets of positive values include their lower edge. Buckets of negative values exclude the edge nearer to zero, so
    that a magnitude must exceed it by the last bit.
    """
    edges, rest = bucket_edges(), (1 << LOWER) - 1
    above = _rounded_up(edges[edges > 0]).view(np.int32)
    below = -_rounded_up(edges[edges < 0])[::-1]  # the largest float32 up to the edge's magnitude
    below = np.concatenate([[0], below.view(np.int32)]) + 1  # -0.0 counts as a positive value
    moves = np.zeros(PATTERNS, np.int32)
    for first, sign in ((above, 0), (below, PATTERNS // 2)):
        moves[(first >> LOWER) + sign] = -first & rest
    positive, negative = (np.concatenate([[0], (first + rest) >> LOWER]) for first in (above, below))
    return torch.from_numpy(moves), positive, negative


def _buckets_of_patterns(counts: Tensor) -> Tensor:
    _, above, below = _pattern_table()
    half = PATTERNS // 2
    positive = np.add.reduceat(counts[:INFINITE].numpy(), above)
    negative = np.add.reduceat(counts[half : half + INFINITE].numpy(), below)
    positive[0] += negative[0]  # -0.0
    return torch.from_numpy(np.concatenate([negative[:0:-1], positive])).double()


def _histogram(counts: np.ndarray, minimum: float, maximum: float, total: float, squares: float) -> Histogram | None:
    filled = counts.nonzero()[0]
    if len(filled) == 0:
        return None
    # TensorBoard draws from the previous limit, so an empty bucket is put first
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
