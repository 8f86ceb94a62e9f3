"""Mean and standard deviation of each colour channel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_STD = 0.01 / 255  # a hundredth of a grey level: fewer than one pixel in 10,000 differs by one level


class Sums(NamedTuple):
    """Sums for mean and standard deviation of some images; exact, regardless of order and grouping."""

    values: np.ndarray  # int64 (N, 3): sum of all pixels of an image, by channel
    squares: np.ndarray  # int64 (N, 3): sum of their squares


def channel_sums(images: np.ndarray) -> Sums:
    """Return the sums of uint8 images ``(N, 3, H, W)``."""
    flat = images.reshape(len(images), 3, -1)
    squares = np.square(flat, dtype=np.uint16)  # 255 * 255 fits
    return Sums(flat.sum(2, dtype=np.int64), squares.sum(2, dtype=np.int64))


def channel_mean_std(sums: Sums, pixels: int) -> tuple[list[float], list[float]]:
    """Return the mean and population standard deviation of R, G and B, on the scale of 0 to 1.

    Args:
        sums: Sums of the images.
        pixels: Number of pixels of each image.
    """
    count = len(sums.values) * pixels
    mean, std = [], []
    for total, squares in zip(sums.values.sum(0).tolist(), sums.squares.sum(0).tolist(), strict=True):
        mean.append(total / count / 255)
        std.append((count * squares - total**2) ** 0.5 / count / 255)
    return mean, std


def constant_channels(std: Sequence[float]) -> list[str]:
    """Return which of R, G and B are constant, or almost constant, by their standard deviations."""
    return [name for name, value in zip("RGB", std, strict=True) if value < LEAST_STD]


def divisors(std: Sequence[float]) -> list[float]:
    """Return standard deviations to divide by: 1 for a constant channel, whose noise would be amplified."""
    return [value if value >= LEAST_STD else 1.0 for value in std]
