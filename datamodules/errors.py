"""The errors that every step of the data path raises."""

from collections.abc import Sequence

SHOWN = 5  # names in a message


class DataError(Exception):
    """The data is not as expected: the message names the file, what was expected, what came, and the way out."""


class ImageError(DataError):
    """A file is no image that can be read.

    Attributes:
        reason: What is wrong with it, without its name and the way out.
    """

    reason = ""


def first_few(names: Sequence[str]) -> str:
    """Return the first few names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
