"""Decode image files for a random crop: large JPEG files at a reduced scale, others at full size."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.reading.decode import read_rgb, upright

try:
    from torchvision.io import decode_jpeg, read_file
except ImportError:  # torchvision 0.29 announces their removal; Pillow takes 1.5 times as long
    decode_jpeg = None

LEAST = 1.5  # pixels of a reduced crop per pixel of the result: with 1, pixels of a noisy photo differ by 3 of 255


def can_reduce(transform: Any) -> bool:
    """Return whether a transform is a RandomResizedCrop, not a subclass, with the usual interpolation."""
    if type(transform) not in (v1.RandomResizedCrop, v2.RandomResizedCrop):
        return False
    bilinear = (v2.InterpolationMode.BILINEAR, "bilinear", Image.Resampling.BILINEAR)
    return bool(transform.antialias) and transform.interpolation in bilinear


def read_crop(path: str, crop: Any, channels: int = 3) -> Tensor:
    """Return a random crop of an image file, uint8 ``(C, H, W)``, as a RandomResizedCrop returns it for its pixels.

    If the crop is much larger than the result, only as many pixels of a JPEG file are computed as it needs. The mean
    difference from ``crop`` is then below 2 of 255; other crops are equal. The same random numbers are drawn.

    Raises:
        ImageError: The file is missing, damaged or not an image.
    """
    header = _read_header(path) if channels == 3 else None
    if header is None:
        return crop(_decode(path, header, channels))
    like = torch.empty(3, header.height, header.width, device="meta")
    top, left, height, width = crop.get_params(like, crop.scale, crop.ratio)
    reduction = int(min(height / crop.size[0], width / crop.size[1]) / LEAST)
    if reduction > 1:
        with suppress(Exception):  # Pillow's can be any; read_rgb reports what is wrong with the file
            return _read_reduced(path, header, (top, left, height, width), crop.size, reduction)
    pixels = _decode(path, header, channels)
    return v2.functional.resized_crop(pixels, top, left, height, width, list(crop.size), antialias=True)


def read_pixels(path: str, channels: int = 3) -> Tensor:
    """Return the pixels of an image file like ``read_rgb``, uint8 ``(C, H, W)``; faster for JPEG files in RGB."""
    return _decode(path, _read_header(path) if channels == 3 else None, channels)


class _Header(NamedTuple):
    """What is known of a JPEG file, grey or RGB, before it is decoded."""

    height: int  # as displayed
    width: int
    upright: bool  # whether its pixels are stored as they are displayed


def _read_header(path: str) -> _Header | None:
    """Return the header of a JPEG file, None of any other file."""
    with suppress(Exception), Image.open(path, formats=["JPEG"]) as image:  # Pillow's can be any
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if image.mode in ("L", "RGB"):
            sides = image.size if orientation in (5, 6, 7, 8) else image.size[::-1]
            return _Header(*sides, orientation == 1)
    return None


def _decode(path: str, header: _Header | None, channels: int) -> Tensor:
    if decode_jpeg is not None and header is not None and header.upright:
        with suppress(RuntimeError):  # read_rgb reports what is wrong with the file
            return decode_jpeg(read_file(path), "RGB")
    return torch.from_numpy(read_rgb(path, channels=channels)).permute(2, 0, 1)


def _read_reduced(
    path: str, header: _Header, crop: tuple[int, int, int, int], result: tuple[int, int], reduction: int
) -> Tensor:
    """Return a crop (top, left, height, width) of a JPEG file, decoded at 1/2, 1/4 or 1/8 of its size, as ``result``.

    ``result`` is height and width, and ``reduction`` is that of the sides, at most.
    """
    top, left, height, width = crop
    with Image.open(path) as image:
        drafted = image.draft(None, (image.width // reduction, image.height // reduction))
        assert drafted is not None, "a JPEG file can be reduced"
        image.load()
        rgb, (x, y, right, bottom) = upright(image, "RGB", *drafted[1][2:])
        scale_y, scale_x = (bottom - y) / header.height, (right - x) / header.width
        box = x + left * scale_x, y + top * scale_y, x + (left + width) * scale_x, y + (top + height) * scale_y
        resized = rgb.resize(result[::-1], Image.Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
