from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from tensorboard.compat.proto.summary_pb2 import HistogramProto
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import make_histogram

from callbacks.gather import bucket_edges, gather


def reference(values: np.ndarray) -> HistogramProto:
    """Return what add_histogram would write."""
    with SummaryWriter(mkdtemp()) as writer:
        return make_histogram(values.astype(np.float64), writer.default_bins)


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
    ],
    ids=["normal", "tiny", "zeros", "one", "wide", "on the edges", "half", "bfloat16"],
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
    assert histogram.sum == pytest.approx(expected.sum)
    assert histogram.sum_squares == pytest.approx(expected.sum_squares)


def test_values_that_are_not_finite_are_counted_apart() -> None:
    found = gather({"x": torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 2.0]), "y": torch.ones(2)})
    assert found["x"].nonfinite == 3
    assert found["y"].nonfinite == 0
    assert found["x"].histogram is not None
    assert (found["x"].histogram.num, found["x"].histogram.min, found["x"].histogram.max) == (2, 1.0, 2.0)


def test_a_tensor_without_a_finite_value_has_no_histogram() -> None:
    found = gather({"x": torch.tensor([float("nan")])})["x"]
    assert (found.histogram, found.nonfinite) == (None, 1)


def test_values_beyond_the_edges_are_counted() -> None:
    histogram = gather({"x": torch.tensor([-1e30, 1e30])})["x"].histogram
    assert histogram is not None
    assert sum(histogram.bucket_counts) == 2


def test_nothing_is_gathered_of_nothing() -> None:
    assert gather({}) == {}
