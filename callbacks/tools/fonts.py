"""Find a font for any text: DejaVu Sans, which Matplotlib includes, or an installed font with the glyphs."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.font_manager import FontProperties, findSystemFonts
from matplotlib.ft2font import FaceFlags, FT2Font
from matplotlib.text import Text
from PIL import ImageFont

DEFAULT = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
SIZE = 12  # font size in pixels
LONGEST = 24  # maximum number of characters of a name in a figure
INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # categories of Unicode: control, format, separators


def names_in_pictures(class_names: Sequence[str]) -> list[str]:
    """Return the class names for images; a name without a font for its glyphs is replaced by the class's number.

    The first of such classes is reported once.
    """
    names = [unicodedata.normalize("NFC", name) for name in class_names]  # é as one character, as in fonts
    numbers = [number for number, name in enumerate(names) if file_of(name) is None]
    if numbers:
        _report(tuple(numbers), names[numbers[0]])
    return [str(number) if number in numbers else name for number, name in enumerate(names)]


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
    """Return a text that a font can draw: unchanged, or with its non-ASCII characters escaped."""
    return text if file_of(text) is not None else text.encode("ascii", "backslashreplace").decode()


def font_of(text: str) -> ImageFont.FreeTypeFont:
    """Return the Pillow font for a text; DejaVu Sans if no font has all glyphs."""
    return _load(file_of(text) or DEFAULT)


def set_fonts(texts: Iterable[Text]) -> None:
    """Set the fonts of texts in a Matplotlib figure to ones that have their glyphs."""
    for text in texts:
        if (file := file_of(text.get_text()) or DEFAULT) != DEFAULT:
            text.set_fontproperties(FontProperties(fname=file, size=text.get_fontsize()))


def file_of(text: str) -> str | None:
    """Return the file of the first font that has all glyphs of a text, or None."""
    return _file_with(frozenset(letter for letter in text if not letter.isascii() and _is_visible(letter)))


@cache
def _file_with(letters: frozenset[str]) -> str | None:
    files = _files()
    for place, file in enumerate(files):
        if _has(file, letters):
            if place:
                files.insert(1, files.pop(place))  # other names of the same script then find it first
            return file
    return None


@cache
def _files() -> list[str]:
    """Return the files of all fonts, regular weights first."""
    installed = sorted(findSystemFonts(), key=lambda file: ("regular" not in file.lower(), file))
    return [DEFAULT, *(file for file in installed if "lastresort" not in file.lower())]  # its glyphs are all boxes


def _has(file: str, letters: Iterable[str]) -> bool:
    try:
        font = FT2Font(file)
    except RuntimeError:  # damaged, or not a font
        return False
    is_supported = font.scalable and FaceFlags.COLOR not in font.face_flags  # neither library draws coloured bitmaps
    return is_supported and all(font.get_char_index(ord(letter)) for letter in (*letters, "A", "0"))


def _is_visible(letter: str) -> bool:
    return unicodedata.category(letter) not in INVISIBLE and letter != "\N{VARIATION SELECTOR-16}"


@cache
def _load(file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, SIZE)


@cache
def _report(numbers: tuple[int, ...], first: str) -> None:
    more = f" and {len(numbers) - 1} other classes" if len(numbers) > 1 else ""
    rank_zero_info(
        f"No installed font has the glyphs of class {first}{more}: images show numbers instead (here {numbers[0]}). "
        "Install a font with these glyphs, such as Noto Sans CJK."
    )
