import ast
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
