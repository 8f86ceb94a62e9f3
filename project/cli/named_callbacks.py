"""Callbacks with names: ``configs/callbacks.yaml`` lists those of every run; configs and options change them by name.

``--callbacks.NAME`` is a class, or false; ``--callbacks.NAME.ARGUMENT`` changes an argument. ``true`` stands for the
class in ``callbacks.yaml``; ``--callbacks false`` sets every name to false.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules import ImageClassifier
from project.errors import RunError
from project.runs.command_line import option_of, split_options
from project.runs.config import CONFIG, read_yaml

DEFAULTS = Path(__file__).parents[2] / "configs" / "callbacks.yaml"


def default_callbacks() -> dict[str, Any]:
    """Return the content of ``configs/callbacks.yaml``, as classes with arguments by name; {} without the file."""
    if not DEFAULTS.is_file():
        return {}
    entries = (read_yaml(DEFAULTS.read_text(encoding="utf-8"), str(DEFAULTS)) or {}).get("callbacks") or {}
    return {name: {"class_path": entry} if isinstance(entry, str) else entry for name, entry in entries.items()}


def callback_names(args: Sequence[str]) -> list[str]:
    """Return the names of the default callbacks, and those to which a command line or its configs assign a class.

    The config of a run also has the names of callbacks that are off.
    """
    names = dict.fromkeys(default_callbacks())
    for option, value in map(option_of, split_options(args)):
        group, _, name = option.partition(".")
        section = _section(value) if option == "config" else {name: _read(value)} if group == "callbacks" else None
        is_of_run = option == "config" and os.path.basename(value or "") == CONFIG
        for key, entry in section.items() if isinstance(section, dict) else ():
            has_class = isinstance(entry, str) or (isinstance(entry, dict) and "class_path" in entry)
            if key and "." not in key and (has_class or is_of_run):  # others are misspelled
                names[key] = None
    return list(names)


def expand_callbacks(args: Sequence[str]) -> list[str]:
    """Return a command line in which ``--callbacks false`` and ``--callbacks.NAME true`` are written out.

    Raises:
        RunError: ``--callbacks`` has another value.
    """
    defaults, all_off = default_callbacks(), [f"--callbacks.{name}=false" for name in callback_names(args)]
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
        elif option != name and name in defaults and _read(value) is True:
            group = [f"--{option}={json.dumps(defaults[name])}"]
        expanded += [*group, *(all_off if option == "config" and _section(value) is False else [])]
    return expanded


def with_named(listed: Any, named: Namespace | None, module: LightningModule) -> list[Callback]:
    """Return the callbacks of ``callbacks`` and of ``trainer.callbacks``, which replace the default of their class.

    Named callbacks that need a classifier are left out, and reported, if the module is none; those that are off are
    False or None.
    """
    others = [item for item in (listed if isinstance(listed, list) else [listed]) if item is not None]
    entries = {name: item for name, item in vars(named or Namespace()).items() if isinstance(item, Callback)}
    replaced = {name for name in default_callbacks() if type(entries.get(name)) in map(type, others)}
    off = set()
    if not isinstance(module, ImageClassifier):
        off = {name for name, item in entries.items() if getattr(item, "needs_classifier", False)}
    if off:
        rank_zero_info(f"Off, because {type(module).__name__} is not an ImageClassifier: {', '.join(sorted(off))}.")
    return [item for name, item in entries.items() if name not in replaced | off] + others


def resolve_callbacks(config: Any) -> None:
    """Replace ``true`` in the ``callbacks`` section of a config by the default class, and remove ``callbacks: false``.

    ``expand_callbacks`` writes the latter out.
    """
    section = config.get("callbacks") if isinstance(config, dict) else None
    if isinstance(section, dict):
        section |= {name: entry for name, entry in default_callbacks().items() if section.get(name) is True}
    elif isinstance(config, dict) and section in (None, False):
        config.pop("callbacks", None)


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
