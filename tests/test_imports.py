import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("project", "lightning_modules", "datamodules", "callbacks", "scripts", "tests")
SHARED = "atomic_files"  # the module that every package may import
MAY_IMPORT = {
    "project": {"project", "lightning_modules", "datamodules", "callbacks"},
    "lightning_modules": {"lightning_modules"},
    "datamodules": {"datamodules"},
    "callbacks": {"callbacks"},
}


def imported(file: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports."""
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


def test_the_shared_module_imports_only_the_standard_library() -> None:
    assert imported(ROOT / f"{SHARED}.py") <= sys.stdlib_module_names


def modules() -> dict[str, Path]:
    """Return the files of all packages by their import paths."""
    files = [file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def room_of(module: str) -> str:
    """Return the folder of a module, or the module itself if it is in the root of its package."""
    return ".".join(module.split(".")[:2])


def edges() -> set[tuple[str, str]]:
    """Return the pairs of importing and imported rooms and public files."""
    known, pairs = modules(), set()
    for module, file in known.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                imported = name if name in known else name.rpartition(".")[0]
                if imported in known and room_of(imported) != room_of(module):
                    pairs.add((room_of(module), room_of(imported)))
    return pairs


def test_rooms_import_no_public_file() -> None:
    rooms = {room for room in map(room_of, modules()) if (ROOT / room.replace(".", "/")).is_dir() and "." in room}
    shared = {
        "datamodules.errors",
        "project.errors",
        "project",
    }  # used by all rooms; and rooms with subclasses of public classes
    inside = {(a, b) for a, b in edges() if a in rooms and b not in rooms and b not in shared}
    assert {(a, b) for a, b in inside if a.split(".")[0] == b.split(".")[0]} <= {
        ("lightning_modules.extras", f"lightning_modules.{name}") for name in ("base", "classifier", "losses")
    }


def test_rooms_have_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in edges():
        if "." in imported:  # the package itself re-exports its classes, and so imports all rooms
            graph.setdefault(importer, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("room", ["runs", "report", "commands"])
def test_a_room_is_imported_without_torch(room: str) -> None:
    names = [name for name in modules() if name.startswith(f"project.{room}")]
    code = f"import sys, {', '.join(names)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_package_is_in_the_distribution() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["py-modules"] == [SHARED]
    assert set(setuptools["packages"]["find"]["include"]) == {f"{package}*" for package in MAY_IMPORT}


def narrows(test: ast.expr, properties: set[str]) -> bool:
    """Return whether a condition only narrows a type for mypy: a name or attribute that is not a property."""
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
    """Yield the nodes of all code except tests, each with its location."""
    for package in (*MAY_IMPORT, "scripts"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_asserts_do_no_work() -> None:
    # PYTHONOPTIMIZE=1 removes asserts, and with them what they compute or check
    every = list(nodes())
    functions = [node for _, node in every if isinstance(node, ast.FunctionDef)]
    properties = {
        function.name
        for function in functions
        if any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
    }
    assert {"description", "image_size", "epoch_ends"} <= properties
    asserts = [(place, node.test) for place, node in every if isinstance(node, ast.Assert)]
    assert asserts
    assert [(place, ast.unparse(test)) for place, test in asserts if not narrows(test, properties)] == []
