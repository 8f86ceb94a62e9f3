"""Errors that the command line reports in one line, and how they are shortened. Imports no torch."""

import os
from collections.abc import Collection


class RunError(Exception):
    """A run was named that does not exist, is not complete, or is not to be had now."""


class DiskFullError(Exception):
    """There is no room for a file; the message goes on after "Expected room"."""


class UsageError(Exception):
    """The command line or a config is not as expected.

    Attributes:
        options: Names of all options, without those of classes.
    """

    options: Collection[str] = ()


def shortened(error: BaseException, length: int = 300) -> str:
    """Return what an error of a library says, in one line of some length, or its name if it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]} ..."


def debugging() -> bool:
    """Tell whether the user asked for whole tracebacks."""
    return os.environ.get("PROJECT_DEBUG", "") not in ("", "0")
