import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("project", "lightning_modules", "datamodules", "callbacks", "scripts", "tests")
MAY_IMPORT = {
    "project": {"project", "lightning_modules", "datamodules", "callbacks"},
    "lightning_modules": {"lightning_modules"},
    "datamodules": {"datamodules"},
    "callbacks": {"callbacks"},
}


def imported(file: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_in_the_one_direction(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert imported(file) & set(PACKAGES) <= MAY_IMPORT[package], file


def test_every_package_is_in_the_distribution() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for package in MAY_IMPORT:
        for folder in {file.parent for file in (ROOT / package).rglob("*.py")}:
            assert f'"{folder.relative_to(ROOT).as_posix().replace("/", ".")}"' in text


def narrows(test: ast.expr, properties: set[str]) -> bool:
    """Return whether a condition only shows a type to mypy: a name or attribute, not a property, and its type."""
    match test:
        case ast.Compare(left=operand, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            pass
        case ast.Call(func=ast.Name(id="isinstance"), args=[operand, _]):
            pass
        case _:
            return False
    while isinstance(operand, ast.Attribute):
        if operand.attr in properties:
            return False
        operand = operand.value
    return isinstance(operand, ast.Name)


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes of all that is run but tests, each with its place."""
    for package in (*MAY_IMPORT, "scripts"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_asserts_do_no_work() -> None:
    # PYTHONOPTIMIZE=1 takes asserts away, and with them what they compute or check
    every = list(nodes())
    functions = [node for _, node in every if isinstance(node, ast.FunctionDef)]
    properties = {one.name for one in functions if any("property" in ast.unparse(d) for d in one.decorator_list)}
    assert {"description", "image_size", "epoch_ends"} <= properties
    asserts = [(place, node.test) for place, node in every if isinstance(node, ast.Assert)]
    assert asserts
    assert [(place, ast.unparse(test)) for place, test in asserts if not narrows(test, properties)] == []
