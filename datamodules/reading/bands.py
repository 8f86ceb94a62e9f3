"""Read TIFF files of four and more channels, which Pillow reads only in part or not at all."""

import logging
import os

import numpy as np
from PIL import Image

from datamodules.errors import DataError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of TIFF and BigTIFF, in either byte order

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it logs, it also raises, or continues after


def is_tiff(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins like a TIFF."""
    with open(path, "rb") as file:
        return file.read(4) in SIGNATURES


def read_bands(path: str | os.PathLike[str], channels: int) -> list[Image.Image]:
    """Return the channels of a TIFF as grey images of 8 bits; they may be interleaved, in planes or in pages.

    Raises:
        DataError: tifffile is not installed.
        ValueError: The file has another number of channels, floats, signed or 32-bit integers, or too many pixels.
    """
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            "Expected the package tifffile for a TIFF of four or more channels, but it is not installed. Install it: "
            "python -m pip install tifffile"
        ) from error
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        if series.size > 2 * (Image.MAX_IMAGE_PIXELS or series.size):  # Pillow's limit
            raise ValueError(f"{series.size} values exceed the limit of {2 * (Image.MAX_IMAGE_PIXELS or 0)}")
        pixels = np.moveaxis(series.asarray(), [series.axes.index(axis) for axis in "YX"], (-2, -1))
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    if len(pixels) != channels:
        raise ValueError(f"expected {channels} channels, but got {len(pixels)}: set --data.channels to their number")
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels * np.float32(255 / 65535)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"expected 8 or 16 bits per channel, but got {pixels.dtype}: save it with 8 or 16 bits")
    return [Image.fromarray(band) for band in pixels]
