"""Normalise images on their device."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalize:
    """Subtract mean and divide by standard deviation.

    Args:
        mean: Mean of R, G and B, on the scale of 0 to 1.
        std: Standard deviation of R, G and B, on the scale of 0 to 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = mean
        self.std = std
        self._scale_and_shift: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, white: int) -> Tensor:
        """Normalise uint8 or float images on a scale of 0 to ``white``; returns float32."""
        key = images.device, white
        if key not in self._scale_and_shift:
            mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
            self._scale_and_shift[key] = 1 / std / white, -mean / std
        scale, shift = self._scale_and_shift[key]
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift)
