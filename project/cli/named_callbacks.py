"""Callbacks with names: ``configs/callbacks.yaml`` lists those of every run; configs and options change them by name.

``--callbacks.NAME`` is a class, or false; ``--callbacks.NAME.ARGUMENT`` changes an argument. ``true`` stands for the
class in ``callbacks.yaml``; ``--callbacks false`` sets every name to false.
"""

import copy
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback

from project.errors import RunError
from project.runs.command_line import is_class, option_of, split_options
from project.runs.config import CONFIG, read_yaml

DEFAULTS = Path(__file__).parents[2] / "configs" / "callbacks.yaml"


@cache
def _defaults() -> dict[str, Any]:
    if not DEFAULTS.is_file():
        return {}
    entries = (read_yaml(DEFAULTS.read_text(encoding="utf-8"), str(DEFAULTS)) or {}).get("callbacks") or {}
    return {name: {"class_path": entry} if isinstance(entry, str) else entry for name, entry in entries.items()}


def default_callbacks() -> dict[str, Any]:
    """Return the content of ``configs/callbacks.yaml``, as classes with arguments by name; {} without the file."""
    return copy.deepcopy(_defaults())


def callback_names(args: Sequence[str]) -> list[str]:
    """Return the names of the default callbacks, and those to which a command line or its configs assign a class.

    The config of a run also has the names of callbacks that are off.
    """
    names = dict.fromkeys(_defaults())
    for option, value in map(option_of, split_options(args)):
        group, _, name = option.partition(".")
        if option == "config" and isinstance(section := _section(value), dict):
            is_of_run = os.path.basename(value or "") == CONFIG
            names |= dict.fromkeys(name for name, entry in section.items() if is_of_run or _has_class(entry))
        elif group == "callbacks" and name and "." not in name and _has_class(_read(value)):
            names[name] = None
    return list(names)


def expand_callbacks(args: Sequence[str]) -> list[str]:
    """Return a command line in which ``--callbacks false`` and ``--callbacks.NAME true`` are written out.

    Raises:
        RunError: ``--callbacks`` has another value.
    """
    all_off = [f"--callbacks.{name}=false" for name in callback_names(args)]
    expanded: list[str] = []
    for group in split_options(args):
        option, value = option_of(group)
        name = option.removeprefix("callbacks.")
        if option == "callbacks":
            if _read(value) is not False:
                raise RunError(
                    "Expected --callbacks false, or --callbacks.NAME with a name of configs/callbacks.yaml, but got "
                    f"{value or 'no value'}."
                )
            group = all_off
        elif option != name and name in _defaults() and _read(value) is True:
            group = [f"--{option}={json.dumps(_defaults()[name])}"]
        expanded += [*group, *(all_off if option == "config" and _section(value) is False else [])]
    return expanded


def with_named(listed: Any, named: Namespace | None) -> list[Callback]:
    """Return the callbacks of ``callbacks`` and of ``trainer.callbacks``, which replace the default of their class.

    Args:
        listed: A list of callbacks, a single one, or None.
        named: Callbacks by name; those that are off are False or None. None without names.
    """
    others = [item for item in (listed if isinstance(listed, list) else [listed]) if item is not None]
    classes = {type(item) for item in others}
    entries = vars(named or Namespace())
    replaced = {name for name in _defaults() if type(entries.get(name)) in classes}
    return [item for name, item in entries.items() if isinstance(item, Callback) and name not in replaced] + others


def resolve_callbacks(config: Any) -> None:
    """Replace ``true`` in the ``callbacks`` section of a config by the default class, and remove ``callbacks: false``.

    ``expand_callbacks`` writes the latter out.
    """
    section = config.get("callbacks") if isinstance(config, dict) else None
    if isinstance(section, dict):
        for name, entry in section.items():
            if entry is True and name in _defaults():
                section[name] = default_callbacks()[name]
    elif isinstance(config, dict) and section in (None, False):
        config.pop("callbacks", None)


def _has_class(value: Any) -> bool:
    """Return whether a value is a class, or a mapping with a class; another name is a misspelled default."""
    return is_class(value) if isinstance(value, str) else isinstance(value, dict) and "class_path" in value


def _section(config: str | None) -> Any:
    """Return the ``callbacks`` section of a config, a file or a text; None if it has none, or cannot be read."""
    try:
        text = Path(config).read_text(encoding="utf-8") if config and os.path.isfile(config) else config
    except (OSError, UnicodeDecodeError):  # the parser reports it
        return None
    content = _read(text)
    return content.get("callbacks") if isinstance(content, dict) else None


def _read(text: str | None) -> Any:
    """Return the content of YAML; None if it cannot be read, which the parser reports."""
    try:
        return read_yaml(text or "")
    except (yaml.YAMLError, RunError):
        return None
