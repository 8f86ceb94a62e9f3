"""Lay tensors out as pictures: grids of grey or coloured cells."""

import math

import torch
from torch import Tensor

BACKGROUND = 0.35  # grey between cells, told apart from black and white
CELL = 24  # smallest side of a cell in pixels: smaller ones cannot be made out on a screen


def symmetric(weights: Tensor) -> Tensor:
    """Map weights to 0 to 1 with zero in the middle, so that a grey cell does nothing."""
    return 0.5 + 0.5 * weights / weights.abs().amax().clamp_min(1e-12)


def min_max(maps: Tensor) -> Tensor:
    """Map each channel of each image, ``(N, C, H, W)``, to 0 to 1 on its own."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def enlarge(images: Tensor, size: int) -> Tensor:
    """Repeat the pixels of ``(..., H, W)`` a whole number of times, until the larger side has at least ``size``."""
    factor = -(-size // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def wrap(cells: Tensor) -> Tensor:
    """Arrange ``(N, 3, H, W)`` as the ``(rows, columns, 3, H, W)`` that are nearest to a square, empty cells behind."""
    columns = math.ceil(len(cells) ** 0.5)
    padding = (0, 0, 0, 0, 0, 0, 0, -len(cells) % columns)
    return torch.nn.functional.pad(cells, padding, value=BACKGROUND).unflatten(0, (-1, columns))


def grid(cells: Tensor, gap: int = 2) -> Tensor:
    """Lay out cells as rows and columns.

    Args:
        cells: ``(rows, columns, 3, H, W)`` from 0 to 1.
        gap: Pixels between two cells and around all.

    Returns:
        uint8 ``(3, height, width)``.
    """
    rows, columns, _, height, width = cells.shape
    framed = torch.full((rows, columns, 3, height + gap, width + gap), BACKGROUND, device=cells.device)
    framed[..., gap:, gap:] = cells
    picture = framed.permute(2, 0, 3, 1, 4).reshape(3, rows * (height + gap), columns * (width + gap))
    picture = torch.nn.functional.pad(picture, (0, gap, 0, gap), value=BACKGROUND)
    return (picture.clamp(0, 1) * 255).round().byte()
