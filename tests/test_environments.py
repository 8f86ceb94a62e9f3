"""Files for GitHub, pre-commit, Docker and editors can be parsed, and only call what the Makefile and tests have."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([\w./-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
BOUNDS = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())


def targets_of(text: str) -> set[str]:
    return set(re.findall(r"make ([\w./-]+)", text))


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert {command.split()[0] for command in commands} == {"make", ".ci/run"}
    assert targets_of("\n".join(commands)) <= TARGETS
    assert (ROOT / ".ci/run").is_file()


def test_the_workflow_tests_each_version_of_python_that_is_allowed() -> None:
    allowed = {f"3.{minor}" for minor in range(30) if f"3.{minor}" in BOUNDS}
    assert {*WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]} == allowed
    first, last = (f"3.{bound}" for bound in re.findall(r"\(3, (\d+)\)", (ROOT / "Makefile").read_text()))
    assert first in BOUNDS
    assert last not in BOUNDS


def test_hooks_run_what_make_check_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]:
        tool, command = hook["entry"].removeprefix(".venv/bin/").split()[:2]
        assert f"$(BIN)/{tool} {command}" in (ROOT / "Makefile").read_text()


def test_containers_call_targets_of_the_makefile() -> None:
    lines = (ROOT / ".devcontainer/devcontainer.json").read_text().splitlines()
    editor = json.loads("\n".join(line for line in lines if not line.startswith("//")))
    image = (ROOT / "Dockerfile").read_text()
    called = targets_of(editor["postCreateCommand"]) | targets_of(image)
    assert called == {".venv/installed", ".venv/installed-dev"}
    assert called <= TARGETS
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", image, re.MULTILINE)
    assert json.loads(entry) == [".venv/bin/python", "-m", "project"]
