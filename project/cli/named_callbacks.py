"""Callbacks with names: ``configs/callbacks.yaml`` lists those of every run; configs and options change them by name.

``--callbacks.NAME`` is a class, or false; ``--callbacks.NAME.ARGUMENT`` changes an argument. ``true`` stands for the
class in ``callbacks.yaml``, and ``--callbacks false`` for false for each name.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from project.errors import RunError
from project.runs.command_line import CLASS, config_files, option_of, split_options
from project.runs.config import read_yaml

DEFAULTS = Path(__file__).parents[2] / "configs" / "callbacks.yaml"


@cache
def default_callbacks() -> dict[str, Any]:
    """Return the content of ``configs/callbacks.yaml``, as classes with arguments by name; {} without the file."""
    if not DEFAULTS.is_file():
        return {}
    entries = read_yaml(DEFAULTS.read_text(encoding="utf-8"))["callbacks"] or {}
    return {name: {"class_path": entry} if isinstance(entry, str) else entry for name, entry in entries.items()}


def callback_names(args: Sequence[str]) -> list[str]:
    """Return the names of the default callbacks, and those to which a command line or its configs assign a class."""
    names = dict.fromkeys(default_callbacks())
    for file in config_files(args):
        section = _section(file)
        if isinstance(section, dict):
            names |= dict.fromkeys(name for name, value in section.items() if _has_class(value))
    for option, value in map(option_of, split_options(args)):
        group, _, name = option.partition(".")
        if group == "callbacks" and name and "." not in name and value is not None:
            names |= {name: None} if value.startswith("{") or _has_class(value) else {}
    return list(names)


def expand_callbacks(args: Sequence[str]) -> list[str]:
    """Return a command line in which ``--callbacks false`` and ``--callbacks.NAME true`` are written out.

    Raises:
        RunError: ``--callbacks`` has another value.
    """
    names = callback_names(args)
    expanded: list[str] = []
    for group in split_options(args):
        option, value = option_of(group)
        name = option.removeprefix("callbacks.")
        if option == "callbacks":
            if value != "false":
                raise RunError(
                    "Expected --callbacks false, or --callbacks.NAME with a name of configs/callbacks.yaml, but got "
                    f"{value}."
                )
            group = [f"--callbacks.{each}=false" for each in names]
        elif option != name and value == "true" and name in default_callbacks():
            group = [f"--{option}={json.dumps(default_callbacks()[name])}"]
        expanded += group
        if option == "config" and value is not None and Path(value).is_file() and _section(Path(value)) is False:
            expanded += [f"--callbacks.{each}=false" for each in names]
    return expanded


def resolve_callbacks(config: Any) -> None:
    """Replace ``true`` in the ``callbacks`` section of a config by the default class, and remove ``callbacks: false``.

    ``expand_callbacks`` writes the latter out.
    """
    if not isinstance(config, dict) or "callbacks" not in config:
        return
    section = config["callbacks"]
    if section is None or section is False:
        del config["callbacks"]
    elif isinstance(section, dict):
        for name, value in section.items():
            if value is True and name in default_callbacks():
                section[name] = default_callbacks()[name]


def _has_class(value: Any) -> bool:
    """Return whether a value is a class, or a mapping with a class; another name is a misspelled default."""
    if isinstance(value, str):
        return CLASS.fullmatch(value) is not None and value not in ("true", "false", "null")
    return isinstance(value, dict) and "class_path" in value


def _section(file: Path) -> Any:
    """Return the ``callbacks`` section of a config; None if it has none, or cannot be read."""
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RunError):  # the parser reports it
        return None
    return content.get("callbacks") if isinstance(content, dict) else None
