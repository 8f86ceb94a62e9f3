from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from tensorboard.compat.proto.summary_pb2 import HistogramProto
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import make_histogram

import callbacks.tools.histogram
from callbacks.tools.histogram import LARGE, Histogram, TensorStatistics, bucket_edges, count, gather


def reference(values: np.ndarray) -> HistogramProto:
    """Return the histogram that ``add_histogram`` would write."""
    with SummaryWriter(mkdtemp()) as writer:
        return make_histogram(values.astype(np.float64), writer.default_bins)


# every float32 edge below 1e19, whose square does not overflow, and its neighbours up to two steps away
EDGES = bucket_edges()[775:-25].astype(np.float32)
NEAR_EDGES = torch.from_numpy(np.concatenate([(EDGES.view(np.int32) + step).view(np.float32) for step in range(-6, 7)]))


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(10_000),
        torch.randn(16, 3, 5, 5) * 1e-6,
        torch.zeros(7),
        torch.tensor([3.0]),
        torch.tensor([-1e-30, 1e-30, 0.0, -5.0, 1e10]),
        torch.from_numpy(bucket_edges()[700:900]).float(),
        torch.randn(1000).half(),
        torch.randn(1000).bfloat16(),
        torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(300_000).exp() * torch.randn(300_000),
        NEAR_EDGES,
        -NEAR_EDGES,
        torch.cat([torch.zeros(9000), -torch.zeros(9000), torch.tensor([-1e-45, 1e-45, -1e-12, 1e-12])]),
    ],
    ids=[
        *("normal", "tiny", "zeros", "one", "wide", "on the edges", "half", "bfloat16", "channels last", "large"),
        *("near the edges", "near the negative edges", "signed zeros"),
    ],
)
def test_counts_are_those_of_add_histogram(values: torch.Tensor) -> None:
    histogram = gather({"x": values})["x"].histogram
    assert histogram is not None
    expected = reference(values.float().numpy().ravel())
    counts = {
        limit: count for limit, count in zip(histogram.bucket_limits, histogram.bucket_counts, strict=True) if count
    }
    assert counts == {
        limit: count for limit, count in zip(expected.bucket_limit, expected.bucket, strict=True) if count
    }
    assert (histogram.min, histogram.max, histogram.num) == (expected.min, expected.max, expected.num)
    size = values.float().abs().sum().item()
    assert histogram.sum == pytest.approx(expected.sum, rel=1e-5, abs=1e-6 * size)  # cancellation limits the precision
    assert histogram.sum_squares == pytest.approx(expected.sum_squares, rel=1e-5)


@pytest.mark.parametrize("size", [10, 100_000])
def test_tensors_of_all_sizes_are_counted_separately(size: int) -> None:
    tensors = {
        "a": torch.ones(size),
        "none": torch.empty(0),
        "scalar": torch.tensor(5.0),
        "b": torch.full((size,), 2.0),
    }
    statistics = gather(tensors)
    assert statistics["none"].histogram is None
    assert {name: each.histogram.sum for name, each in statistics.items() if each.histogram} == {
        "a": size,
        "scalar": 5,
        "b": 2 * size,
    }
    assert statistics["b"].rms == 2


def test_many_non_finite_or_huge_values_are_counted() -> None:
    values = torch.randn(20_000)
    values[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    values[3] = 1e30  # its square overflows
    statistics = gather({"x": values})["x"]
    assert statistics.nonfinite == 3
    assert statistics.histogram is not None
    assert (statistics.histogram.num, statistics.histogram.max) == (19_997, pytest.approx(1e30))
    assert statistics.histogram.sum_squares == pytest.approx(1e60)


def test_non_finite_values_are_counted_separately() -> None:
    statistics = gather({"x": torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 2.0]), "y": torch.ones(2)})
    assert statistics["x"].nonfinite == 3
    assert statistics["y"].nonfinite == 0
    assert statistics["x"].histogram is not None
    assert (statistics["x"].histogram.num, statistics["x"].histogram.min, statistics["x"].histogram.max) == (
        2,
        1.0,
        2.0,
    )


def test_a_tensor_without_a_finite_value_has_no_histogram() -> None:
    statistics = gather({"x": torch.tensor([float("nan")])})["x"]
    assert (statistics.histogram, statistics.nonfinite) == (None, 1)


def test_values_beyond_the_edges_are_counted() -> None:
    histogram = gather({"x": torch.tensor([-1e30, 1e30])})["x"].histogram
    assert histogram is not None
    assert sum(histogram.bucket_counts) == 2


def test_no_tensors_give_no_statistics() -> None:
    assert gather({}) == {}


def exact(statistics: TensorStatistics) -> tuple[Histogram | None, int]:
    """Return the fields that do not depend on the order of summation."""
    return statistics.histogram and statistics.histogram._replace(sum=0, sum_squares=0), statistics.nonfinite


def test_a_large_tensor_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a": torch.randn(1000), "none": torch.empty(0), "b": torch.randn(70), "c": torch.randn(LARGE)}
    for values in (tensors["a"], tensors["c"]):
        values[[3, 500, 501]] = torch.tensor([float("nan"), -50, 60])
    whole = gather(tensors)
    search, sizes = callbacks.tools.histogram._count_by_search, []
    monkeypatch.setattr(
        callbacks.tools.histogram, "_count_by_search", lambda parts: sizes.append(sum(map(len, parts))) or search(parts)
    )
    monkeypatch.setattr(callbacks.tools.histogram, "GROUP", 100)
    parts = gather(tensors)
    assert max(sizes) == 100
    assert {name: exact(each) for name, each in parts.items()} == {name: exact(each) for name, each in whole.items()}
    for name in ("a", "b", "c"):
        assert parts[name].rms == pytest.approx(whole[name].rms)
        assert parts[name].histogram.sum == pytest.approx(whole[name].histogram.sum)


@pytest.mark.cuda
def test_counting_does_not_wait_for_the_device() -> None:
    tensors = [torch.randn(size) for size in (10, 1000, 100_000)]
    on_gpu = [tensor.cuda() for tensor in tensors]
    count(on_gpu)  # copies the edges to the GPU, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = count(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(rows.cpu(), count(tensors), rtol=1e-5, atol=1e-2)
