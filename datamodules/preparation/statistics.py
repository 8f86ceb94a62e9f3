"""Mean and standard deviation of each channel."""

from collections.abc import Sequence

import numpy as np

LEAST_STD = 0.01 / 255  # a hundredth of a grey level: fewer than one pixel in 10,000 differs by one level


def channel_sums(images: np.ndarray) -> np.ndarray:
    """Return the sum of the pixels of each image, uint8 ``(N, C, H, W)``, and that of their squares, by channel.

    They are int64 ``(N, 2, C)``: exact, so that the sum over images does not depend on their order.
    """
    flat = images.reshape(*images.shape[:2], -1)
    squares = np.square(flat, dtype=np.uint16)  # 255 * 255 fits
    return np.stack([flat.sum(2, dtype=np.int64), squares.sum(2, dtype=np.int64)], axis=1)


def channel_mean_std(sums: np.ndarray, pixels: int) -> tuple[list[float], list[float]]:
    """Return mean and population standard deviation of each channel, from 0 to 1, given ``channel_sums`` of images."""
    count = len(sums) * pixels
    totals, squares = sums.sum(0).tolist()
    mean = [total / count / 255 for total in totals]
    std = [(count * square - total**2) ** 0.5 / count / 255 for total, square in zip(totals, squares, strict=True)]
    return mean, std


def divisors(std: Sequence[float]) -> list[float]:
    """Return standard deviations to divide by: 1 for a constant channel, whose noise would be amplified."""
    return [value if value >= LEAST_STD else 1.0 for value in std]
