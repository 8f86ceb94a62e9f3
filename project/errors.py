"""Exceptions that the command line reports in one line, and helpers to format them. Imports no torch."""

import os
from collections.abc import Collection


class RunError(Exception):
    """A command cannot run: a setting is invalid, or a run or file that it needs is missing, invalid or in use."""


class DiskFullError(Exception):
    """The disk is full. The message states the space that is needed, and where."""


class UsageError(Exception):
    """The command line or a config cannot be parsed.

    Attributes:
        options: Names of all options, except those of classes.
    """

    options: Collection[str] = ()


def shortened(error: BaseException, length: int = 300) -> str:
    """Return the message of an error in one line of at most ``length`` characters, or its class name if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]} ..."


def debugging() -> bool:
    """Return whether the user asked for full tracebacks with PROJECT_DEBUG."""
    return os.environ.get("PROJECT_DEBUG", "") not in ("", "0")
