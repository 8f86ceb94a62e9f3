"""Lay tensors out as pictures: grids of grey or coloured cells, with words."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BACKGROUND = 0.35  # grey between cells, told apart from black and white
CELL = 24  # smallest side of a cell in pixels: smaller ones cannot be made out on a screen
FONT = 12  # height of letters in pixels
LINE = 16  # height of a line
NARROWEST = 260  # pixels of a picture with a caption


def symmetric(weights: Tensor) -> Tensor:
    """Map weights to 0 to 1 with zero in the middle, so that a grey cell does nothing; those not finite to zero."""
    weights = weights.nan_to_num(0, 0, 0)
    return 0.5 + 0.5 * weights / weights.abs().amax().clamp_min(1e-12)


def min_max(maps: Tensor) -> Tensor:
    """Map each channel of each image, ``(N, C, H, W)``, to 0 to 1 on its own."""
    maps = maps.nan_to_num(0, 0, 0)
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


def add_caption(picture: Tensor, text: str) -> Tensor:
    """Return a picture, uint8 ``(3, H, W)``, with black words on white beneath it, in as many lines as it takes."""
    _, height, width = picture.shape
    lines, wide = [""], max(width, NARROWEST)
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > wide - 4:
            lines.append(word)
        else:
            lines[-1] = longer
    strip = Image.new("RGB", (wide, LINE * len(lines) + 4), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((3, LINE * number + 1), line, "black", _font())
    result = torch.full((3, height + strip.height, wide), 255, dtype=torch.uint8)
    result[:, :height, :width] = picture
    result[:, height:] = torch.from_numpy(np.array(strip)).permute(2, 0, 1)
    return result


def sheet(images: Tensor, captions: Sequence[Sequence[str]], columns: int = 6, side: int = 96) -> Tensor:
    """Return images in rows, each with its own lines beneath it.

    Args:
        images: Float ``(N, 3, H, W)`` from 0 to 1.
        captions: Lines of each image; words that do not fit are cut.
        columns: Images in a row.
        side: Smallest side of an image in pixels.

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
            draw.text((left, top + height + LINE * line), shortened(text, width), "black", _font())
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def rendered(figure: Figure) -> Tensor:
    """Return a Matplotlib figure as a picture, uint8 ``(3, H, W)``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1)


def shortened(text: str, width: int) -> str:
    """Return a text that is no wider than so many pixels, with an ellipsis for what was cut."""
    text = " ".join(text.split())
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT)
