import numpy as np
import pytest

from datamodules.preparation.statistics import channel_mean_std, channel_sums, divisors


def test_mean_and_std_are_those_of_float64() -> None:
    rng = np.random.default_rng(0)
    images = (rng.beta(2, [3, 1, 5], size=(50, 16, 12, 3)) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    images[0] = 255
    sums = channel_sums(images)
    assert sums[0].tolist() == [[255 * 16 * 12] * 3, [255 * 255 * 16 * 12] * 3]
    mean, std = channel_mean_std(sums, 16 * 12)
    pixels = images.transpose(0, 2, 3, 1).reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-12)


@pytest.mark.parametrize("different", [0, 1])  # of 100,000 pixels, by a grey level
def test_a_channel_that_is_all_but_constant_is_not_scaled(different: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 100, 100), np.uint8)
    images[:, 0], images[0, 0, 0, :different] = 7, 8
    std = channel_mean_std(channel_sums(images), 100 * 100)[1]
    assert divisors(std) == [1.0, *std[1:]]
