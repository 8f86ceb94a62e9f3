"""Exceptions of the data modules."""

from collections.abc import Sequence

SHOWN = 5  # names in a message


class DataError(Exception):
    """The data is invalid. The message names the file, what was expected, what was found and what to change."""


class ImageError(DataError):
    """An image file cannot be read.

    Attributes:
        reason: The problem, without the file's name and the remedy.
    """

    reason = ""


def first_few(names: Sequence[str]) -> str:
    """Return the first few names, separated by commas, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
