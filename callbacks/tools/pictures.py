"""Arrange tensors as images: grids of grey or coloured cells, with text."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from callbacks.tools.fonts import cut_middle, drawable, font

BACKGROUND = 0.35  # grey between cells, distinct from black and white
CELL = 24  # minimum side of a cell in pixels, so that it is recognisable on a screen
LINE = 16  # height of a line of text in pixels
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


def enlarge(images: Tensor, size: int) -> Tensor:
    """Repeat the pixels of ``(..., H, W)`` by an integer factor, until the larger side has at least ``size``."""
    factor = -(-size // max(images.shape[-2:]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def wrap(cells: Tensor) -> Tensor:
    """Arrange ``(N, 3, H, W)`` as ``(rows, columns, 3, H, W)``, as square as possible, with empty cells at the end."""
    columns = math.ceil(len(cells) ** 0.5)
    padding = (0, 0, 0, 0, 0, 0, 0, -len(cells) % columns)
    return torch.nn.functional.pad(cells, padding, value=BACKGROUND).unflatten(0, (-1, columns))


def grid(cells: Tensor, gap: int = 2) -> Tensor:
    """Arrange cells in rows and columns.

    Args:
        cells: ``(rows, columns, 3, H, W)`` from 0 to 1.
        gap: Pixels between cells and at the border.

    Returns:
        uint8 ``(3, height, width)``.
    """
    rows, columns, _, height, width = cells.shape
    framed = torch.full((rows, columns, 3, height + gap, width + gap), BACKGROUND, device=cells.device)
    framed[..., gap:, gap:] = cells
    picture = framed.permute(2, 0, 3, 1, 4).reshape(3, rows * (height + gap), columns * (width + gap))
    picture = torch.nn.functional.pad(picture, (0, gap, 0, gap), value=BACKGROUND)
    return (picture.clamp(0, 1) * 255).round().byte()


def add_caption(picture: Tensor, text: str) -> Tensor:
    """Return an image, uint8 ``(3, H, W)``, with a caption in black on white below it, wrapped to its width."""
    _, height, width = picture.shape
    lines, wide = [""], max(width, NARROWEST)
    for word in drawable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font().getlength(longer) > wide - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    strip = Image.new("RGB", (wide, LINE * len(lines) + 4), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((3, LINE * number + 1), line, "black", font())
    result = torch.full((3, height + strip.height, wide), 255, dtype=torch.uint8)
    result[:, :height, :width] = picture
    result[:, height:] = torch.from_numpy(np.array(strip)).permute(2, 0, 1)
    return result


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
    images = enlarge(images, side)
    height, width = images.shape[-2:]
    lines, columns = max(map(len, captions)), min(columns, len(images))
    cell_height, cell_width = height + LINE * lines + 6, width + 6
    rows = -(-len(images) // columns)
    picture = Image.new("RGB", (columns * cell_width + 6, rows * cell_height + 6), "white")
    draw = ImageDraw.Draw(picture)
    for number, (image, words) in enumerate(zip(images, captions, strict=True)):
        left, top = 6 + number % columns * cell_width, 6 + number // columns * cell_height
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        picture.paste(Image.fromarray(pixels), (left, top))
        for line, text in enumerate(words):
            caption = shortened(drawable(text), width)
            draw.text((left, top + height + LINE * line), caption, "black", font())
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def rendered(figure: Figure) -> Tensor:
    """Render a Matplotlib figure as an image, uint8 ``(3, H, W)``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)


def shortened(text: str, width: int) -> str:
    """Shorten a text to a width in pixels by an ellipsis in the middle, because its end may be a number."""
    text = " ".join(text.split())
    if font().getlength(text) <= width:
        return text
    length = len(text)
    while length and font().getlength(cut_middle(text, length)) > width:
        length -= 1
    return cut_middle(text, length)
