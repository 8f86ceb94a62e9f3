"""Define which arguments remain when a config or an option replaces a class or a list.

jsonargparse keeps every argument whose name the new class accepts: AdamW would train with SGD's learning rate, and a
param group with the learning rate of the group at its index. With this module, a new class keeps only arguments that
both classes inherit from a common base class, such as a DataModule's ``batch_size``, and a new list keeps none.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace, _typehints
from jsonargparse._util import NestedArg

_dropped: dict[tuple[str, str], dict[str, Any]] = {}  # (new class, old class): arguments that both accept
_discard = _typehints.discard_init_args_on_class_path_change
_check_type = _typehints.ActionTypeHint._check_type


def reset() -> None:
    """Forget the classes that a previous command line replaced."""
    _dropped.clear()


def replaced_classes(config: Any) -> list[str]:
    """Return one line for each class of a parsed config whose arguments differ from those of the class it replaces."""
    return [line for (new, old), dropped in _dropped.items() if (line := _line(new, old, dropped, config))]


def _line(new: str, old: str, dropped: dict[str, Any], config: Any) -> str:
    args = next((entry.get("init_args") or {} for entry in _classes(config) if entry["class_path"] == new), {})
    changed = {name: (args[name], value) for name, value in dropped.items() if args.get(name, value) != value}
    words = [f"{name} {_shown(value)} (not {_shown(before)})" for name, (value, before) in changed.items()]
    return f"{new} replaces {old} and does not inherit its arguments: {', '.join(words)}." if words else ""


def _shown(value: Any) -> str:
    return str(value.get("class_path", value) if isinstance(value, Namespace) else value)


def _classes(value: Any) -> Iterator[Any]:
    """Yield all classes of a config, with their arguments."""
    if isinstance(value, Namespace):
        if "class_path" in value:
            yield value
        for inner in vars(value).values():
            yield from _classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(inner)


def _drop_arguments(parser_or_action: Any, before: Any, value: Any) -> None:
    """Drop the arguments of the old class, except those that both classes inherit."""
    given = before.get("init_args") if before else None
    if given and before["class_path"] != value["class_path"]:
        old, new = before["class_path"], value["class_path"]
        own = value.get("init_args") or {}
        for name in list(given.keys(branches=True, nested=False)):
            owner = _owner(new, name)
            if owner is None or owner is not _owner(old, name):
                dropped = given.pop(name)
                if owner is not None and name not in own:
                    _dropped.setdefault((new, old), {})[name] = dropped
    _discard(parser_or_action, before, value)


def _owner(path: str, argument: str) -> type | None:
    """Return the class, among the one at an import path and its bases, whose ``__init__`` declares an argument."""
    module, _, name = path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    for base in cls.__mro__ if inspect.isclass(cls) else ():
        if "__init__" in vars(base) and argument in inspect.signature(vars(base)["__init__"]).parameters:
            return base
    return None


def _check_list(self: Any, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
    """Check a value; items of a list inherit nothing from the items of the list that it replaces."""
    if cfg and not append and not isinstance(value, NestedArg) and isinstance(cfg.get(self.dest), list):
        cfg = None
    return _check_type(self, value, append=append, cfg=cfg, mode=mode)


_typehints.discard_init_args_on_class_path_change = _drop_arguments
_typehints.ActionTypeHint._check_type = _check_list  # type: ignore[method-assign]  # it has no hook for this
