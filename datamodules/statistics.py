"""Mean and standard deviation of each colour channel."""

from collections.abc import Iterable

import numpy as np


def channel_mean_std(images: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Return mean and (population) standard deviation of R, G and B over all pixels, on the scale of 0 to 1.

    Exact: sums of integers, divided once.

    Args:
        images: uint8 ``(H, W, 3)`` each; sizes may differ.
    """
    histogram = np.zeros((3, 256), np.int64)
    for pixels in images:
        for channel in range(3):
            histogram[channel] += np.bincount(pixels[:, :, channel].ravel(), minlength=256)
    values = np.arange(256)
    count = int(histogram[0].sum())
    mean, std = [], []
    for total, squares in zip(
        (histogram * values).sum(1).tolist(), (histogram * values**2).sum(1).tolist(), strict=True
    ):
        mean.append(total / count / 255)
        std.append((count * squares - total**2) ** 0.5 / count / 255)
    return mean, std
