"""Exceptions that the command line reports in one line, and helpers to format them. Imports no torch."""

import os
from collections.abc import Iterable
from difflib import get_close_matches


class RunError(Exception):
    """A command cannot run: a setting is invalid, or a run or file that it needs is missing, invalid or in use."""


class UsageError(Exception):
    """The command line or a config cannot be parsed."""


def shortened(error: BaseException, length: int = 300) -> str:
    """Return the message of an error in one line of at most ``length`` characters, or its class name if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]} ..."


def did_you_mean(word: str, known: Iterable[str], form: str = "{}") -> str:
    """Return " Did you mean ...?" with the known word that is closest, in a form; "" if none is similar."""
    near = get_close_matches(word, list(known), 1)
    return f" Did you mean {form.format(near[0])}?" if near else ""


def debugging() -> bool:
    """Return whether the user asked for full tracebacks with PROJECT_DEBUG."""
    return os.environ.get("PROJECT_DEBUG", "") not in ("", "0")
