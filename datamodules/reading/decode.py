"""Turn an image file of any format and mode into RGB pixels of the wanted size, or into one line that says why not."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from datamodules.errors import ImageError

Resize = Literal["crop", "pad", "squash"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

IMAGE_SUFFIXES: frozenset[str]  # lower case, with the dot; see __getattr__

# Pillow goes on after what it warns of (damaged EXIF, tags or animations, many pixels), without naming the file. Said
# once, here: filters belong to the whole process, so that catching warnings file by file would race between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs comes as an exception too

# drawings that Ghostscript or Windows would have to run, a film, and containers of which Pillow reads only the name
_NOT_PICTURES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC"}

# EXIF orientation -> what makes the image upright, as in ImageOps.exif_transpose
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# what decoding changes of an image that its viewer would miss, and how
LOSSES = {
    "alpha": ("have transparent parts", "they are laid over white"),
    "channels": ("have channels beyond red, green, blue and alpha", "these are left out"),
    "depth": ("have more than 8 bits a channel", "they are scaled to 8"),
    "frames": ("have several frames or pages", "the first is taken"),
    "profile": ("have a colour profile other than sRGB", "it is not applied"),
}

# (least maximum, white) of images that do not say what their white is. A float image with a maximum between 1 and 2
# could be either one with overshoot or one that is all but black, so it is neither.
_WHITES = {"F": ((0, 1), (2, 255)), "I": ((0, 255), (256, 65535))}

# A JPEG is decoded to no less than this many times the wanted size: bilinear antialiasing wants something to average.
# Pillow's `thumbnail` takes 2 as well. See test_large_jpeg_is_read_nearly_as_if_decoded_in_full.
_DRAFT_GAP = 2

if not TYPE_CHECKING:

    def __getattr__(name: str) -> frozenset[str]:  # asking for the suffixes imports all of Pillow's plugins: 0.2 s
        if name != "IMAGE_SUFFIXES":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        suffixes = Image.registered_extensions()
        readable = {*Image.OPEN, "MPO"} - _NOT_PICTURES  # MPO is opened as JPEG
        globals()[name] = frozenset(suffix.lower() for suffix, kind in suffixes.items() if kind in readable)
        return globals()[name]


def read_rgb(path: str | os.PathLike[str], on_loss: Callable[[str], None] | None = None) -> np.ndarray:
    """Return the pixels of an image file, uint8 ``(H, W, 3)``, writable, upright as its EXIF orientation says.

    Transparent pixels are laid over white, as viewers show them. Of several frames or pages it is the first. More
    than 8 bits are scaled to 8. Floats up to 1 are taken as 0 to 1, higher ones as 0 to 255; 32-bit integers up to 255
    as 0 to 255, higher ones as 0 to 65535.

    Args:
        path: The file.
        on_loss: Called with each key of ``LOSSES`` that applies to it.

    Raises:
        ImageError: The file is missing, damaged, no image, or of floats or integers beyond these ranges.
    """
    return np.array(_read(path, on_loss=on_loss)[0])


def read_square(
    path: str | os.PathLike[str], size: int | None, resize: Resize, on_loss: Callable[[str], None] | None = None
) -> np.ndarray:
    """Return ``fit(read_rgb(path, on_loss), size, resize)``, or ``read_rgb(path, on_loss)`` where ``size`` is None.

    A large JPEG is decoded at a reduced scale, which is several times faster and gives nearly the same pixels.
    """
    if size is None:
        return read_rgb(path, on_loss)
    return np.array(_fit(*_read(path, size, resize, on_loss), size, resize))


def fit(pixels: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """Make an image square; one that already has this size stays as it is.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        size: Side of the square in pixels.
        resize: ``"crop"``: the shorter side becomes ``size``, and the middle is kept. ``"pad"``: the longer side
            becomes ``size``, and the rest black. ``"squash"``: both sides become ``size``; proportions are lost.

    Returns:
        uint8 ``(size, size, 3)``, scaled with Pillow's antialiased bilinear filter, as torchvision scales.
    """
    height, width, _ = pixels.shape
    return np.array(_fit(Image.fromarray(pixels), (0, 0, width, height), size, resize))


def _read(
    path: str | os.PathLike[str],
    size: int | None = None,
    resize: Resize = "crop",
    on_loss: Callable[[str], None] | None = None,
) -> tuple[Image.Image, Box]:
    """Return a file's image, RGB and upright, or a smaller one that is large enough to be made to fit ``size``.

    The box is what the picture fills of it: at a reduced scale, not all of the last row and column.
    """
    try:
        with Image.open(path) as image:
            if image.format in _NOT_PICTURES:
                raise UnidentifiedImageError
            drafted = None if size is None else image.draft(None, _draft_size(image, size, resize))
            layout = str(image.tile)  # which loading empties
            image.load()
            width, height = drafted[1][2:] if drafted else image.size
            upright = _turned(_to_rgb(image), width, height, _orientation(image) if image.info else 1)
            if on_loss is not None:
                for loss in _losses(image, layout):
                    on_loss(loss)
            return upright
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        raise _complaint(path, error) from error


def _draft_size(image: Image.Image, size: int, resize: Resize) -> tuple[int, int]:
    least = size * _DRAFT_GAP
    if resize != "pad":
        return least, least
    return (least, 1) if image.width > image.height else (1, least)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        image = _to_8_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _losses(image: Image.Image, layout: str) -> Iterator[str]:
    """Yield the keys of ``LOSSES`` that apply to a loaded image, whose file stored its pixels in a layout."""
    deep = image.mode[0] in "IF"
    if image.has_transparency_data and (deep or np.asarray(image.convert("RGBA"))[..., 3].min() < 255):
        yield "alpha"
    tags: Any = getattr(image, "tag_v2", {})  # of TIFF
    if tags.get(ExifTags.Base.SamplesPerPixel, 1) > len(image.getbands()):
        yield "channels"
    if deep or ";16" in layout:
        yield "depth"
    with suppress(Exception):  # a damaged second frame; GIF looks for it. MPO holds previews, and PSD layers
        if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):
            yield "frames"
    profile = image.info.get("icc_profile") or b"sRGB"
    if b"sRGB" not in profile and b"s\0R\0G\0B" not in profile:  # its name, in version 2 or 4
        yield "profile"


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a grey image of integers or floats, which ``convert("RGB")`` would clip to white."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of TIFF
    if image.mode != "F" and (image.mode != "I" or image.format in ("PNG", "PPM")):  # these two scale it to 16 bits
        white = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
    else:
        low, high = values.min(), values.max()
        whites = [white for least, white in _WHITES[image.mode] if low >= 0 and least <= high <= white]
        if not whites:
            ranges = " or ".join(f"0 to {white}" for _, white in _WHITES[image.mode])
            raise ValueError(f"expected numbers from {ranges}, but got {low:g} to {high:g}: save it with 8 or 16 bits")
        white = whites[0]
    grey = np.rint(values * np.float32(255 / white)).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero, which Pillow minds up to 8 bits only
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in _UPRIGHT else 1
    except Exception:  # damaged EXIF, of which Pillow raises many things; the picture is what counts
        return 1


def _turned(image: Image.Image, width: float, height: float, orientation: int) -> tuple[Image.Image, Box]:
    """Return the image upright, and the box where its upper left ``width`` x ``height`` have come to lie."""
    if orientation == 1:
        return image, (0, 0, width, height)
    image = image.transpose(_UPRIGHT[orientation])
    if orientation >= 5:
        width, height = height, width
    left = image.width - width if orientation in (2, 3, 6, 7) else 0
    top = image.height - height if orientation in (3, 4, 7, 8) else 0
    return image, (left, top, left + width, top + height)


def _fit(image: Image.Image, box: Box, size: int, resize: Resize) -> Image.Image:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    bilinear = Image.Resampling.BILINEAR
    if width == height == size:
        return image
    if resize == "squash" or width == height:
        return image.resize((size, size), bilinear, box)
    if resize == "pad":
        longer = max(width, height)
        inner = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        square = Image.new("RGB", (size, size))
        square.paste(image.resize(inner, bilinear, box), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return square
    # One step instead of two, as 1 x 5000 pixels would become a million wide before they are cropped. The corner is at
    # a whole pixel of the result, so that an image that needs no scaling keeps its pixels.
    shorter = min(width, height)
    left += round((width - shorter) * size / (2 * shorter)) * shorter / size
    top += round((height - shorter) * size / (2 * shorter)) * shorter / size
    return image.resize((size, size), bilinear, (left, top, left + shorter, top + shorter))


def _complaint(path: str | os.PathLike[str], error: Exception) -> ImageError:
    """Return an error whose one line is the file, what is wrong with it, and the way out."""
    remedy = "Take its line out of the index file."
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        reason, remedy = "is missing", "Put it back, or take its line out of the index file."
    elif os.path.isdir(path):
        reason = "is a folder, but an image was expected"
    elif isinstance(error, PermissionError):
        reason = "may not be read by this user"
        remedy = "Change its permissions, or take its line out of the index file."
    else:
        if isinstance(error, UnidentifiedImageError):
            damaged = "damaged, or of no picture format that Pillow knows"
            why = damaged if os.path.getsize(path) else "it is empty: 0 bytes"
        else:
            why = printable(str(error)) or type(error).__name__
        reason, remedy = f"is not a readable image ({why})", "Replace it, or take its line out of the index file."
    complaint = ImageError(f"{printable(os.fsdecode(path))} {reason}. {remedy}")
    complaint.reason = reason
    return complaint


def printable(text: str) -> str:
    """Return text as it is, or in quotes, with what a terminal cannot show escaped."""
    return text if text.isprintable() else repr(text)
