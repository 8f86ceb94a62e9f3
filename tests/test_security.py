"""Claims of SECURITY.md that no other test covers."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from audit import KNOWN_BAD
from command_line import stop_of
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}


def test_tests_that_are_named_exist() -> None:
    assert len(NAMED) > 20
    for file, name in NAMED:
        functions = [
            node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{file}::{name}"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:pathlib.Path"])
def test_yaml_makes_no_objects(tag: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evil.yaml").write_text(f"trainer:\n  max_epochs: {tag} [{tmp_path}/made]\n")
    code, err = stop_of(["fit", *fast, f"--config={tmp_path}/evil.yaml", f"--runs_dir={tmp_path}/runs"], capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "runs").exists()


def test_malicious_versions_are_excluded() -> None:
    versions = ["2.6.2", "2.6.3", "2.6.4", "2.6.5", "2.6.6"]
    assert list(ASKED["lightning"].filter(versions)) == ["2.6.6"]


def test_lower_bounds_exclude_versions_that_are_known_to_be_bad() -> None:
    for package, versions, *_ in KNOWN_BAD:
        if package in ASKED:  # others are indirect dependencies
            lowest = next(bound.version for bound in ASKED[package] if bound.operator == ">=")
            assert lowest not in SpecifierSet(versions), package
