"""Class names as text in images, in DejaVu Sans, which Matplotlib includes.

It has Latin, Greek, Cyrillic, Arabic and Hebrew letters, but no Chinese, Japanese, Korean and Indian ones.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from callbacks.tools import warn_once

FILE = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
LONGEST = 150  # width of a short class name, in pixels


@cache
def font() -> ImageFont.FreeTypeFont:
    """Return the font for Pillow."""
    return ImageFont.truetype(FILE, size=12)


def names_in_pictures(class_names: Sequence[str]) -> list[str]:
    """Return the class names for images; a name with letters that the font lacks becomes the number of its class."""
    letters = FT2Font(FILE).get_charmap()
    names = [unicodedata.normalize("NFC", name) for name in class_names]  # é as one character, as in fonts
    lacking = {number for number, name in enumerate(names) if not all(ord(letter) in letters for letter in name)}
    if lacking:
        warn_once(f"Images show the numbers of {len(lacking)} classes, whose names have letters that the font lacks.")
    return [str(number) if number in lacking else name for number, name in enumerate(names)]


def short_names(class_names: Sequence[str]) -> list[str]:
    """Return the class names for images; long ones are shortened, with their numbers in front."""
    names = names_in_pictures(class_names)
    shorter = [shortened(name, LONGEST) for name in names]
    pairs = enumerate(zip(names, shorter, strict=True))
    return [name if name == short else f"{number} {short}" for number, (name, short) in pairs]


def names_in_figures(class_names: Sequence[str]) -> list[str]:
    """Return the short names for Matplotlib figures."""
    return [name.replace("$", r"\$") for name in short_names(class_names)]  # otherwise a formula


def shortened(text: str, width: int) -> str:
    """Shorten a text to a width in pixels by an ellipsis in the middle, because its end may be a number."""
    short, length = text, len(text)
    while length and font().getlength(short) > width:
        length -= 1
        short = f"{text[: length - length // 2]}…{text[len(text) - length // 2 :]}"
    return short
