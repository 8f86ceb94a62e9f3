"""Find the callback that writes a tag by its docstring, without importing it. Imports no torch."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

OTHERS = {"lr": "lightning.pytorch.callbacks.LearningRateMonitor"}


def maker_of(tag: str) -> str | None:
    """Return the class path of the callback that writes ``<tag>/...`` or files ``<tag>_...``, or None."""
    if tag in OTHERS:
        return OTHERS[tag]
    return next((path for path, text in _docstrings().items() if re.search(rf"`{re.escape(tag)}[/_`.]", text)), None)


@cache
def _docstrings() -> dict[str, str]:
    spec = importlib.util.find_spec("callbacks")
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.py"))]
    classes = [node for file in files for node in _body(file) if isinstance(node, ast.ClassDef)]
    return {f"callbacks.{node.name}": ast.get_docstring(node) or "" for node in classes}


def _body(file: Path) -> list[ast.stmt]:
    """Return the statements of a Python file; an empty list if it cannot be parsed."""
    try:
        return ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # ValueError: a null byte, before Python 3.12
        return []
