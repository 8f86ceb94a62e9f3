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

GREY = 89  # between cells, distinct from black and white
CELL = 24  # minimum side of a cell in pixels, so that it is recognisable on a screen
LINE = 16  # height of a line of text in pixels
LETTER = 8  # width of a wide letter in pixels
NARROWEST = 260  # minimum width of an image with a caption in pixels


def symmetric(weights: Tensor) -> Tensor:
    """Map weights to 0 to 1 with zero at 0.5, so that grey means zero; non-finite weights become zero."""
    weights = weights.nan_to_num(0, 0, 0)
    return 0.5 + 0.5 * weights / weights.abs().amax().clamp_min(1e-12)


def to_bytes(images: Tensor) -> Tensor:
    """Convert an image from 0 to 1 to uint8; leave one of uint8 as it is."""
    return images if images.dtype == torch.uint8 else (images.clamp(0, 1) * 255).round().byte()


def enlarge(images: Tensor, size: int) -> Tensor:
    """Repeat the pixels of ``(..., H, W)`` by an integer factor, until the larger side has at least ``size``."""
    factor = -(-size // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def grid(cells: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Arrange cells in rows; like torchvision's ``make_grid``, but without a loop over the cells.

    Args:
        cells: ``(..., N, C, H, W)``, from 0 to 1 or uint8.
        columns: Cells in a row; by default, the grid is as square as possible.
        gap: Pixels between cells and at the border.

    Returns:
        uint8 ``(..., C, height, width)``.
    """
    count = cells.shape[-4]
    columns = columns or math.ceil(count**0.5)
    padding = (gap, 0, gap, 0, 0, 0, 0, -count % columns)
    framed = F.pad(to_bytes(cells), padding, value=GREY).unflatten(-4, (-1, columns))  # (..., rows, columns, C, H, W)
    picture = framed.movedim(-3, -5).transpose(-3, -2).flatten(-2).flatten(-3, -2)
    return F.pad(picture, (0, gap, 0, gap), value=GREY)


def add_caption(picture: Tensor, text: str) -> Image.Image:
    """Return an image, uint8 ``(3 or 1, H, W)``, with a caption in black on white below it, wrapped to its width."""
    image = to_pil_image(picture)
    wide = max(image.width, NARROWEST)
    lines = textwrap.wrap(text, wide // LETTER)
    canvas = Image.new(image.mode, (wide, image.height + LINE * len(lines) + 4 * bool(lines)), "white")
    canvas.paste(image)
    write(canvas, lines, 3, image.height + 1)
    return canvas


def rows_of_text(lines: Sequence[str], middles: Sequence[float], height: int) -> Image.Image:
    """Return an image of lines of text, aligned to the right, each at its height."""
    width = math.ceil(max((font().getlength(line) for line in lines), default=0)) + 8
    canvas = Image.new("RGB", (width, height), "white")
    for line, middle in zip(lines, middles, strict=True):
        ImageDraw.Draw(canvas).text((width - 4, middle), line, "black", font(), anchor="rm")
    return canvas


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
    images = enlarge(to_bytes(images), side)
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
