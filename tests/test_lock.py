"""Compare the lock files with the requirements of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = {
    "requirements.lock": PROJECT["dependencies"],
    "requirements-dev.lock": PROJECT["optional-dependencies"]["dev"],
}


def entries(lock: str) -> list[str]:
    """Return the requirements of a lock file, each in one line with its hashes."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("lock", ASKED)
def test_every_package_is_pinned_by_hash_and_to_no_index(lock: str) -> None:
    for entry in entries(lock):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^@]+?)?( +--hash=sha256:[0-9a-f]{64})+", entry), entry[:100]


@pytest.mark.parametrize("lock", ASKED)
def test_lock_file_satisfies_the_requirements(lock: str) -> None:
    pinned = {}
    for entry in entries(lock):
        name, version = entry.split()[0].split("==")
        pinned.setdefault(name, []).append(version)
    for line in ASKED[lock]:
        asked = Requirement(line)
        versions = pinned.get(canonicalize_name(asked.name), [])
        assert versions, f"{asked.name} is missing: make lock"
        assert all(version in asked.specifier for version in versions), f"{line}, but got {versions}: make lock"


def test_both_lock_files_agree() -> None:
    pins = {entry.split(" --hash")[0].split(" ;")[0].strip() for entry in entries("requirements.lock")}
    names = {pin.split("==")[0] for pin in pins}
    for entry in entries("requirements-dev.lock"):
        pin = entry.split(" --hash")[0].split(" ;")[0].strip()
        assert pin in pins or pin.split("==")[0] not in names
