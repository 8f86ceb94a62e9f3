"""The command line of the template, ``python -m project <command>``, and ``from project import fit, load``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import
    from project.api import fit, load

__all__ = ["fit", "load"]

__version__ = "0.1.0"
COMMANDS = ("fit", "validate", "test")  # of Lightning's Trainer
# one module each in project/commands/
EXTRA_COMMANDS = ("prepare", "preview", "predict", "export", "report", "runs", "sweep", "find-lr", "doctor", "schema")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from project import api

    return getattr(api, name)
