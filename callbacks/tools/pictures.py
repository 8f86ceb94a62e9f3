"""Arrange tensors as images: grids of grey or coloured cells, with text."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from callbacks.tools.fonts import font, shortened

BACKGROUND = 0.35  # grey between cells, distinct from black and white
CELL = 24  # minimum side of a cell in pixels, so that it is recognisable on a screen
LINE = 16  # height of a line of text in pixels
LETTER = 8  # width of a wide letter in pixels
NARROWEST = 260  # minimum width of an image with a caption in pixels


def symmetric(weights: Tensor) -> Tensor:
    """Map weights to 0 to 1 with zero at 0.5, so that grey means zero; non-finite weights become zero."""
    weights = weights.nan_to_num(0, 0, 0)
    return 0.5 + 0.5 * weights / weights.abs().amax().clamp_min(1e-12)


def min_max(maps: Tensor) -> Tensor:
    """Map each channel of each image, ``(N, C, H, W)``, separately to 0 to 1."""
    maps = maps.nan_to_num(0, 0, 0)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def as_rgb(images: Tensor) -> Tensor:
    """Return the first three channels of images ``(N, C, H, W)``, or the first as grey if there are fewer."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def enlarge(images: Tensor, size: int) -> Tensor:
    """Repeat the pixels of ``(..., H, W)`` by an integer factor, until the larger side has at least ``size``."""
    factor = -(-size // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(cells: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Arrange cells in rows; like torchvision's ``make_grid``, but without a loop over the cells.

    Args:
        cells: ``(N, 3, H, W)`` from 0 to 1.
        columns: Cells in a row; by default, the grid is as square as possible.
        gap: Pixels between cells and at the border.

    Returns:
        uint8 ``(3, height, width)``.
    """
    columns = columns or math.ceil(len(cells) ** 0.5)
    padding = (gap, 0, gap, 0, 0, 0, 0, -len(cells) % columns)
    framed = F.pad(cells, padding, value=BACKGROUND).unflatten(0, (-1, columns))  # (rows, columns, 3, H, W)
    picture = framed.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    picture = F.pad(picture, (0, gap, 0, gap), value=BACKGROUND)
    return (picture.clamp(0, 1) * 255).round().byte()


def add_caption(picture: Tensor, text: str) -> Tensor:
    """Return an image, uint8 ``(3, H, W)``, with a caption in black on white below it, wrapped to its width."""
    height, width = picture.shape[-2:]
    wide = max(width, NARROWEST)
    lines = textwrap.wrap(text, wide // LETTER)
    canvas = Image.new("RGB", (wide, height + LINE * len(lines) + 4), "white")
    canvas.paste(to_pil_image(picture))
    write(canvas, lines, 3, height + 1)
    return pil_to_tensor(canvas)


def write(canvas: Image.Image, lines: Sequence[str], left: int, top: int) -> None:
    """Write lines of black text into an image."""
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((left, top + LINE * number), line, "black", font())


def sheet(images: Tensor, captions: Sequence[Sequence[str]], columns: int = 6, side: int = 96) -> Tensor:
    """Arrange images in rows, each with its own lines of text below it.

    Args:
        images: Float ``(N, 3, H, W)`` from 0 to 1.
        captions: Lines of text of each image; text that does not fit is shortened.
        columns: Number of images in a row.
        side: Minimum side of an image in pixels.

    Returns:
        uint8 ``(3, height, width)``.
    """
    images = (enlarge(images, side).clamp(0, 1) * 255).round().byte()
    columns, (height, width) = min(columns, len(images)), images.shape[-2:]
    down, across = height + LINE * max(map(len, captions)) + 6, width + 6
    canvas = Image.new("RGB", (columns * across + 6, -(-len(images) // columns) * down + 6), "white")
    for number, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left, top = 6 + number % columns * across, 6 + number // columns * down
        canvas.paste(to_pil_image(image), (left, top))
        write(canvas, [shortened(line, width) for line in lines], left, top + height)
    return pil_to_tensor(canvas)


def rendered(figure: Figure) -> Tensor:
    """Render a Matplotlib figure as an image, uint8 ``(3, H, W)``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)
