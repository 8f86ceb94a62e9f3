import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("project", "lightning_modules", "datamodules", "callbacks")
SHARED = "atomic_files"  # the module that every package may import
FILES = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


@cache
def imports_of(file: Path) -> set[str]:
    """Return the modules that a file imports, and what it imports from modules as "module.name"."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_in_the_one_direction(package: str) -> None:
    allowed = {*PACKAGES} if package == "project" else {package}
    for file in (ROOT / package).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(file)}
        assert roots & {*PACKAGES, "scripts", "tests"} <= allowed, file


def test_the_shared_module_imports_only_the_standard_library() -> None:
    assert {name.split(".")[0] for name in imports_of(ROOT / f"{SHARED}.py")} <= sys.stdlib_module_names


def room_of(module: str) -> str:
    """Return the folder of a module, or the module itself if it is in the root of its package."""
    return ".".join(module.split(".")[:2])


def edges() -> set[tuple[str, str]]:
    """Return the pairs of importing and imported rooms and public files."""
    pairs = set()
    for module, file in MODULES.items():
        for name in imports_of(file):
            imported = name if name in MODULES else name.rpartition(".")[0]
            if imported in MODULES and room_of(imported) != room_of(module):
                pairs.add((room_of(module), room_of(imported)))
    return pairs


def test_rooms_import_no_public_file() -> None:
    rooms = {room for room in map(room_of, MODULES) if (ROOT / room.replace(".", "/")).is_dir() and "." in room}
    shared = {"datamodules.errors", "project.errors", "project"}  # used by all rooms
    inside = {(a, b) for a, b in edges() if a in rooms and b not in rooms and b not in shared}
    extras = {("lightning_modules.extras", f"lightning_modules.{name}") for name in ("base", "classifier", "losses")}
    assert {(a, b) for a, b in inside if a.split(".")[0] == b.split(".")[0]} <= extras  # subclasses of public classes


def test_rooms_have_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in edges():
        if "." in imported:  # the package itself re-exports its classes, and so imports all rooms
            graph.setdefault(importer, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_runs_reports_and_commands_are_imported_without_torch() -> None:
    names = [name for name in MODULES if re.match(r"project\.(runs|report|commands)\b", name)]
    code = f"import sys, {', '.join(names)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_package_is_in_the_distribution() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["py-modules"] == [SHARED]
    assert {*setuptools["packages"]["find"]["include"]} == {f"{package}*" for package in PACKAGES}


def test_asserts_only_narrow_types() -> None:
    # PYTHONOPTIMIZE=1 removes asserts, and with them what they compute or check
    files = [*FILES, *(ROOT / "scripts").glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    properties = {node.name for node in functions if "property" in " ".join(map(ast.unparse, node.decorator_list))}
    assert "image_size" in properties
    for test in [ast.unparse(node.test) for node in nodes if isinstance(node, ast.Assert)]:
        narrowed = re.fullmatch(r"(?P<value>[\w.]+) is not None|isinstance\((?P<instance>[\w.]+), \w+\)", test)
        assert narrowed, test
        assert not properties & set((narrowed["value"] or narrowed["instance"]).split(".")), test


def test_packages_use_no_part_of_the_library_that_windows_lacks() -> None:
    # "not on Windows" is shown by hasattr or getattr; scripts may need POSIX
    for file in FILES:
        text = file.read_text()
        roots = {name.split(".")[0] for name in imports_of(file)}
        assert not roots & {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios"}, file
        assert not re.search(r"signal\.SIG(HUP|KILL|USR|ALRM|CHLD)|mp\.get_context\(.fork", text), file
        for name in re.findall(r"os\.(fork|getpgid|getuid|killpg|setpgid|setsid|sched_getaffinity|uname)\b", text):
            assert f'hasattr(os, "{name}")' in text, f"{file}: os.{name}"
