import math

import numpy as np
import pytest
import torch

import callbacks.tools.histogram
from callbacks.tools.histogram import EDGES, LIMITS, count, gather

INF, NAN = math.inf, math.nan
EXACT = torch.from_numpy(EDGES).float()  # the edges are exact in float32


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(10_000),
        torch.randn(16, 3, 5, 5) * 1e-6,
        torch.zeros(7),
        torch.tensor(3.0),
        torch.tensor([-1e-45, 1e-45, -1e-30, 1e-30, 0.0, -0.0, -5.0, 1e10, 1e30]),
        torch.randn(1000).half(),
        torch.randn(1000).bfloat16(),
        torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(300_000).exp() * torch.randn(300_000),
        torch.cat([EXACT, EXACT * 1.01, EXACT.nextafter(torch.tensor(0.0))]),
        torch.tensor([NAN, 1.0, INF, -INF, 2.0]),
    ],
    ids=lambda values: f"{tuple(values.shape)}{values.dtype}",
)
def test_counts_and_moments_are_those_of_numpy(values: torch.Tensor) -> None:
    histogram = gather({"x": values})["x"]
    numbers = values.double().numpy().ravel()
    finite = numbers[np.isfinite(numbers)]
    # a bucket includes its edge nearer to zero: mirror negative values, so that numpy includes it too
    positive = np.histogram(finite[finite >= 0], [0, *EDGES, np.inf])[0]
    negative = np.histogram(-finite[finite < 0], [0, *EDGES, np.inf])[0]
    expected = [*negative[:0:-1], negative[0] + positive[0], *positive[1:]]
    counts = dict(zip(histogram.bucket_limits, histogram.bucket_counts, strict=True))
    assert [counts.get(limit, 0) for limit in LIMITS] == expected
    assert (histogram.min, histogram.max) == (finite.min(), finite.max())
    assert (histogram.num, histogram.nonfinite) == (len(finite), len(numbers) - len(finite))
    assert histogram.sum == pytest.approx(math.fsum(finite), rel=1e-6, abs=1e-12 * np.abs(finite).sum())
    assert histogram.rms == pytest.approx(np.square(finite).mean() ** 0.5, rel=1e-6)
    assert len(histogram.bucket_counts) == 1 + np.ptp(np.nonzero(expected)) or histogram.bucket_counts[0] == 0


def test_tensors_are_counted_separately_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks.tools.histogram, "CHUNK", 100)
    tensors = {"a": torch.ones(1234), "none": torch.empty(0), "b": torch.full((5, 5), 2.0), "bad": torch.tensor([NAN])}
    histograms = gather(tensors)
    assert {name: each.sum for name, each in histograms.items() if each.num} == {"a": 1234, "b": 50}
    assert [each.nonfinite for each in histograms.values()] == [0, 0, 0, 1]
    assert gather({}) == {}


@pytest.mark.cuda
def test_counting_does_not_wait_for_the_device() -> None:
    tensors = [torch.randn(size) for size in (10, 1000, 3_000_000)]
    on_gpu = [tensor.cuda() for tensor in tensors]
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = list(map(count, on_gpu))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for row, tensor in zip(rows, tensors, strict=True):
        torch.testing.assert_close(row.cpu(), count(tensor), rtol=1e-5, atol=1e-2)
