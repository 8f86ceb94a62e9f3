"""What SECURITY.md claims, as far as no other test shows it."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_cli import stop_of

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(tests/\w+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())))


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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert not {"2.6.2", "2.6.3"} & set(asked["lightning"].filter(["2.6.2", "2.6.3", "2.6.4"]))
    assert "2.6.4" in asked["lightning"]
