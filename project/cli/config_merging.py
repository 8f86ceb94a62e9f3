"""Define which arguments remain when a config or an option replaces a class or a list.

jsonargparse keeps every argument whose name the new class accepts: AdamW would train with SGD's learning rate, and a
param group with the learning rate of the group at its index. With this module, a new class keeps only arguments that
both classes inherit from a common base class, such as a DataModule's ``batch_size``, and a new list keeps none.
"""

import inspect
import sys
from typing import Any

from jsonargparse import _typehints
from jsonargparse._util import NestedArg

_replaced: dict[tuple[str, str], dict[str, Any]] = {}  # (new class, old class): values that both have arguments for
_discard = _typehints.discard_init_args_on_class_path_change
_check_type = _typehints.ActionTypeHint._check_type


def replaced_classes() -> list[str]:
    """Return one line for each class that the last command line replaced by one with arguments of the same names."""
    lines = []
    for (new, old), dropped in _replaced.items():
        values = ", ".join(f"{name} {getattr(value, 'class_path', value)}" for name, value in dropped.items())
        lines.append(f"{new} replaces {old}, and does not inherit its arguments: {values}.")
    _replaced.clear()
    return lines


def _drop_arguments(parser_or_action: Any, before: Any, value: Any) -> None:
    """Drop the arguments of the old class, except those that both classes inherit."""
    given = before.get("init_args") if before else None
    if given and before["class_path"] != value["class_path"]:
        old, new = before["class_path"], value["class_path"]
        for name in list(given.keys(branches=True, nested=False)):
            owner = _owner(new, name)
            if owner is None or owner is not _owner(old, name):
                dropped = given.pop(name)
                if owner is not None and name not in (value.get("init_args") or {}):
                    _replaced.setdefault((new, old), {})[name] = dropped
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
