"""Process a command line before it is parsed. Imports no torch."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

HOME = re.compile(r"~[\w.-]*(/|$)")


def expand_home(text: str) -> str:
    """Return a path with a leading ``~`` or ``~user`` expanded, and any other text unchanged."""
    return os.path.expanduser(text) if HOME.match(text) else text


def expand_homes(args: Sequence[str]) -> list[str]:
    """Return a command line with ``~`` expanded, which shells do not do in ``--option=~/path``."""
    parts = (arg.partition("=") if arg.startswith("-") else ("", "", arg) for arg in args)
    return [f"{option}{equals}{expand_home(value)}" for option, equals, value in parts]


def split_options(args: Sequence[str]) -> list[list[str]]:
    """Return each option of a command line with its values; the arguments before the first option are one group."""
    groups: list[list[str]] = []
    for arg in args:
        if not groups or arg.startswith("--") or arg.partition("=")[0] == "-c":
            groups.append([])
        groups[-1].append(arg)
    return groups


def option_of(group: Sequence[str]) -> tuple[str, str | None]:
    """Return the name and the first value of an option; the name is ``config`` for ``-c``."""
    name, equals, value = group[0].partition("=")
    name = "config" if name == "-c" else name.removeprefix("--")
    return name, value if equals else group[1] if len(group) > 1 else None


def config_files(args: Sequence[str]) -> list[Path]:
    """Return the config files of a command line."""
    options = map(option_of, split_options(args))
    values = [value for name, value in options if name == "config" and value is not None]
    return [Path(value) for value in values if os.path.isfile(value)]  # Path.is_file raises for a long text
