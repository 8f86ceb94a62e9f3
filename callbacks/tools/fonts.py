"""Text in images, in DejaVu Sans, which Matplotlib includes: Latin, Greek, Cyrillic, Arabic, Hebrew, and symbols.

It lacks Chinese, Japanese, Korean and Indian scripts: images show the numbers of such classes instead of their names.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

FILE = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
SIZE = 12  # font size in pixels
LONGEST = 24  # maximum number of characters of a name in a figure


@cache
def font() -> ImageFont.FreeTypeFont:
    """Return the font for Pillow."""
    return ImageFont.truetype(FILE, SIZE)


def names_in_pictures(class_names: Sequence[str]) -> list[str]:
    """Return the class names for images; a name with letters that the font lacks is replaced by the class's number."""
    names = [unicodedata.normalize("NFC", name) for name in class_names]  # é as one character, as in fonts
    shown = [name if drawable(name) == name else str(number) for number, name in enumerate(names)]
    if shown != names:
        rank_zero_warn(
            f"The font of images lacks letters of {sum(map(str.__ne__, shown, names))} class names. Images show the "
            "numbers of these classes; tables and CSV files show their names."
        )
    return shown


def names_in_figures(class_names: Sequence[str]) -> list[str]:
    """Return the class names for Matplotlib figures: at most ``LONGEST`` characters, with formulas escaped.

    An ellipsis replaces the middle, because the ends distinguish most names. If shortened names are equal, all are
    prefixed with their numbers.
    """
    names = names_in_pictures(class_names)
    short = [name if len(name) <= LONGEST else cut_middle(name, LONGEST - 1) for name in names]
    if len(set(short)) < len(set(names)):
        short = [f"{number} {name}" for number, name in enumerate(short)]
    return [name.replace("$", r"\$") for name in short]


def cut_middle(text: str, length: int) -> str:
    """Return a text shortened to ``length`` characters and an ellipsis in the middle."""
    return f"{text[: length - length // 2]}…{text[len(text) - length // 2 :]}"


def drawable(text: str) -> str:
    """Return a text in which letters that the font lacks are escaped."""
    known = _letters()
    return "".join(letter if ord(letter) in known else letter.encode("unicode_escape").decode() for letter in text)


@cache
def _letters() -> set[int]:
    """Return the code points that need no escape: those of the font, and tabs and line ends, which are not drawn."""
    return {*FT2Font(FILE).get_charmap(), *range(32)}
