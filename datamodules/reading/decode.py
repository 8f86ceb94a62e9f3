"""Decode an image file of any format and mode to pixels of given channels and size, or raise a one-line error."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from datamodules.errors import DataError, ImageError
from datamodules.reading.bands import is_tiff, read_bands

Resize = Literal["crop", "pad", "squash"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

# Pillow continues after its warnings (damaged EXIF, tags or animations, many pixels), which do not name the file.
# They are ignored globally, because filters belong to the process: changing them per file would race between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs, it also raises

# vector formats that need Ghostscript or Windows, a video format, and containers that Pillow only identifies
_NOT_PICTURES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC"}

# visible information that decoding loses
LOSSES = {
    "alpha": "have transparent parts, which are composited over white unless --data.channels is 4",
    "channels": "have channels beyond red, green, blue and alpha, which are dropped; --data.channels keeps all",
    "frames": "have several frames or pages, of which only the first is used",
}

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of Pillow, by number of channels

IMAGE_SUFFIXES = frozenset(  # lower case, with the dot; MPO is opened as JPEG
    suffix.lower()
    for suffix, kind in Image.registered_extensions().items()
    if kind in {*Image.OPEN, "MPO"} - _NOT_PICTURES
)


def read_rgb(
    path: str | os.PathLike[str],
    size: int | None = None,
    resize: Resize = "crop",
    losses: list[str] | None = None,
    channels: int = 3,
) -> np.ndarray:
    """Return the pixels of an image file, uint8 ``(H, W, channels)``, writable, with its EXIF orientation applied.

    Any image is converted to 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 channels (RGB and alpha); without a channel for
    it, transparent pixels are composited over white. A TIFF is not converted to 4 or more channels: it must have them.
    Only the first of several frames or pages is read. Channels of 16 bits are scaled to 8.

    Args:
        path: Image file.
        size: Side in pixels of the square to which the image is resized, by Pillow's antialiased bilinear filter, like
            torchvision; pixels of an image of this size are unchanged. None: the image is not resized.
        resize: ``"crop"``: resize the shorter side to ``size`` and crop the centre. ``"pad"``: resize the longer side
            to ``size`` and pad with black. ``"squash"``: resize both sides, ignoring the aspect ratio.
        losses: If given, receives the keys of ``LOSSES`` that apply to the file.
        channels: Number of channels of the result.

    Raises:
        ImageError: The file is missing, damaged or not an image, lacks channels, or has floats or 32 bits per channel.
    """
    try:
        if channels > 3 and is_tiff(path):
            bands = read_bands(path, channels)
            if size is not None:
                bands = [_fit(band, (0, 0, *band.size), size, resize) for band in bands]
            return np.dstack(list(map(np.asarray, bands)))
        with Image.open(path) as image:
            if image.format in _NOT_PICTURES:
                raise UnidentifiedImageError
            if channels not in MODES:
                raise ValueError(f"expected a TIFF of {channels} channels, but got {image.format}")
            drafted = None if size is None else image.draft(None, _draft_size(image, size, resize))
            image.load()
            if losses is not None:
                losses += _losses(image, channels)
            displayed, box = upright(image, MODES[channels], *(drafted[1][2:] if drafted else image.size))
            pixels = np.array(displayed if size is None else _fit(displayed, box, size, resize))
            return pixels.reshape(*pixels.shape[:2], channels)  # grey has two dimensions
    except DataError:  # a missing package, not a damaged file
        raise
    except Exception as error:  # Pillow's plugins can raise any exception on a damaged file
        raise _complaint(path, error) from error


def _draft_size(image: Image.Image, size: int, resize: Resize) -> tuple[int, int]:
    """Return the size at which a large JPEG is decoded at least: 12 megapixels take 40 instead of 260 ms."""
    least = 2 * size  # antialiasing needs pixels to average; Pillow's `thumbnail` uses 2 as well
    if resize != "pad":
        return least, least
    return (least, 1) if image.width > image.height else (1, least)


def upright(image: Image.Image, mode: str, width: float, height: float) -> tuple[Image.Image, Box]:
    """Return an image in a mode, as its EXIF orientation displays it, and where its ``width`` x ``height`` pixels are.

    At a reduced scale, they are less than all of the last row and column.
    """
    upright, left, top = _convert(image, mode), 0.0, 0.0
    with suppress(Exception):  # Pillow can raise any exception on damaged EXIF; the pixels are still valid
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        upright.getexif()[ExifTags.Base.Orientation] = orientation
        upright = ImageOps.exif_transpose(upright)
        if orientation in (5, 6, 7, 8):
            width, height = height, width
        left = upright.width - width if orientation in (2, 3, 6, 7) else 0
        top = upright.height - height if orientation in (3, 4, 7, 8) else 0
    return upright, (left, top, left + width, top + height)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode[0] in "IF":
        image = _to_8_bits(image)
    elif image.has_transparency_data and mode[-1] != "A":
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        image = white
    return image if image.mode == mode else image.convert(mode)


def _losses(image: Image.Image, channels: int) -> Iterator[str]:
    """Yield the keys of ``LOSSES`` that apply to a loaded image that is converted to a number of channels."""
    is_deep = image.mode[0] in "IF"
    is_lost = image.has_transparency_data and (is_deep or channels in (1, 3))
    if is_lost and (is_deep or np.asarray(image.convert("RGBA"))[..., 3].min() < 255):
        yield "alpha"
    tags: Any = getattr(image, "tag_v2", {})  # of TIFF
    if tags.get(ExifTags.Base.SamplesPerPixel, 1) > len(image.getbands()):
        yield "channels"
    with suppress(Exception):  # a damaged second GIF frame; frames of MPO are previews, and of PSD layers
        if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):
            yield "frames"


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a grey image of 16 bits, because ``convert("RGB")`` would clip it to white."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # these are scaled to 16 bits
        got = "floats" if image.mode == "F" else "32 bits"
        raise ValueError(f"expected 8 or 16 bits per channel, but got {got}: save it with 8 or 16 bits")
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of TIFF
    white = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    grey = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero; Pillow handles it only up to 8 bits
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _fit(image: Image.Image, box: Box, size: int, resize: Resize) -> Image.Image:
    left, top, right, bottom = box
    width, height, bilinear = right - left, bottom - top, Image.Resampling.BILINEAR
    if width == height == size:
        return image
    if resize == "squash" or width == height:
        return image.resize((size, size), bilinear, box)
    if resize == "pad":
        longer = max(width, height)
        inner = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize(inner, bilinear, box), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return square
    # Resize and crop in one step, because 1 x 5000 pixels would otherwise become a million wide before the crop. The
    # corner is at a whole pixel of the result, so that an image that needs no scaling keeps its pixels.
    shorter = min(width, height)
    left += round((width - shorter) * size / (2 * shorter)) * shorter / size
    top += round((height - shorter) * size / (2 * shorter)) * shorter / size
    return image.resize((size, size), bilinear, (left, top, left + shorter, top + shorter))


def _complaint(path: str | os.PathLike[str], error: Exception) -> ImageError:
    """Return a one-line error with the file, the problem and the remedy."""
    remedy = "Replace it, or remove it from the data."
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        reason, remedy = "is missing", "Restore it, or remove its line from the index file."
    else:
        problem = getattr(error, "strerror", None) or printable(str(error)) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            empty = os.path.getsize(path) == 0
            problem = "it is empty: 0 bytes" if empty else "damaged, or not in an image format that Pillow can read"
            if not empty and is_tiff(path):
                problem = "damaged, or a TIFF of several channels: set --data.channels to their number"
        reason = f"is not a readable image ({problem})"
    complaint = ImageError(f"{printable(os.fsdecode(path))} {reason}. {remedy}")
    complaint.reason = reason
    return complaint


def printable(text: str) -> str:
    """Return text unchanged if it is printable, or else quoted and escaped for the terminal."""
    return text if text.isprintable() else repr(text)
