import errno
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from run_folders import results_of

from project.runs import git as uncommitted
from project.runs import record

STARTED = datetime(2026, 11, 21, 9, tzinfo=UTC)


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *who, *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with a committed network, which replaces that of this project."""
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "network.py").write_bytes(b"width = 1\r\nname = '\xe9'\n")  # reading it as text would change it
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Start")
    monkeypatch.setattr(uncommitted, "CODE", folder)
    return folder


def start(run: Path, state: str = "finished", **facts: Any) -> dict[str, Any]:
    """Start or resume a run, end it, and return its record."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").touch()
    record.begin(run, ["fit"], **facts)
    record.end(run, state, 60)
    return record.read(run)


def test_a_run_records_versions_git_and_hardware(finished_run: Path) -> None:
    info = record.read(finished_run)
    assert info["command"][0] == "fit"
    assert info["seed"] == 0
    assert info["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert len(info["data"]["digest"]) == 64
    assert info["hardware"]["threads"] == torch.get_num_threads()
    assert info["seconds"] > 0


def test_the_code_is_restored_from_the_commit_and_the_patch(code: Path, tmp_path: Path) -> None:
    commit = git(code, "rev-parse", "HEAD").strip()
    clean = start(tmp_path / "clean")
    assert clean["git"] == {"commit": commit, "dirty": False, "untracked": []}
    assert not list((tmp_path / "clean").glob("*.diff"))

    (code / "network.py").write_bytes(b"width = 2\r\nname = '\xe9'\n")
    (code / "mine.py").write_text("depth = 3\n")
    facts = start(tmp_path / "edited")["git"]
    diff = tmp_path / "edited" / "uncommitted.diff"
    assert (facts["commit"], facts["dirty"], facts["untracked"]) == (commit, True, ["mine.py"])
    assert facts["diff_sha256"] == sha256(diff.read_bytes()).hexdigest()
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(code), str(again))
    git(again, "apply", str(diff))
    for name in ("network.py", "mine.py"):
        assert (again / name).read_bytes() == (code / name).read_bytes()


def test_code_without_git_has_no_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncommitted, "CODE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert start(tmp_path / "run")["git"] is None


@pytest.mark.parametrize("file", ["network.py", "mine.py"])
def test_two_edits_of_one_commit_are_not_the_same_code(file: str, code: Path, tmp_path: Path) -> None:
    runs = [tmp_path / f"runs/lenet/2026-11-21_1{i}-00-00" for i in range(3)]
    for run, width in zip(runs, (2, 2, 3), strict=True):
        (code / file).write_text(f"width = {width}\n")
        start(run)
    first, same, other = (result.environment["git"] for result in results_of(tmp_path / "runs"))
    assert first == same != other


def test_a_resumed_run_retains_the_facts_of_its_first_start(code: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/lenet/2026-11-21_10-00-00"
    first = start(run, hardware={"cpu": "a"}, seed=1)
    (code / "network.py").write_text("width = 2\n")
    start(run, hardware={"cpu": "a"}, seed=1)
    second = start(run, hardware={"cpu": "b"}, seed=1)
    assert {name: second[name] for name in record.ENVIRONMENT} == {name: first[name] for name in record.ENVIRONMENT}
    assert [set(later) - {"at", "command"} for later in second["resumed"]] == [{"git"}, {"git", "hardware"}]
    assert second["resumed"][1]["hardware"] == {"cpu": "b"}
    assert b"+width = 2" in (run / "uncommitted_2.diff").read_bytes()
    (result,) = results_of(tmp_path / "runs")
    assert result.environment["hardware"] == '{"cpu": "a"}\n{"cpu": "b"}'
    assert len(result.environment["git"].splitlines()) == 2


def write_killed(run: Path, **fields: Any) -> Path:
    """Write a run that was killed ten minutes after its start, with an older best.ckpt."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / record.FILE).write_text(json.dumps({"state": "running", "started": STARTED.isoformat()} | fields))
    for name, minutes in (("best", -20), ("last", 10)):
        file = run / f"checkpoints/{name}.ckpt"
        file.touch()
        written = (STARTED + timedelta(minutes=minutes)).timestamp()
        os.utime(file, (written, written))
    return run


def test_a_killed_start_counts_to_its_last_checkpoint(tmp_path: Path) -> None:
    killed = write_killed(tmp_path / "lenet/2026-11-21_10-00-00")
    at = {"at": (STARTED + timedelta(minutes=4)).isoformat(), "command": []}
    write_killed(tmp_path / "lenet/2026-11-21_11-00-00", seconds=60.0, resumed=[at])
    late = {"at": (STARTED + timedelta(hours=1)).isoformat(), "command": []}
    write_killed(tmp_path / "lenet/2026-11-21_12-00-00", seconds=60.0, resumed=[at, late])  # before a checkpoint
    results = results_of(tmp_path)
    assert [(result.state, result.minutes) for result in results] == [("killed", 10), ("killed", 7), ("killed", 1)]
    assert start(killed)["seconds"] == 11 * 60


def test_a_run_is_killed_if_no_process_holds_its_lock(tmp_path: Path) -> None:
    record._write(tmp_path, {"state": "running"})
    assert record.state_of(tmp_path) == "killed"
    with FileLock(tmp_path / record.LOCK):
        assert record.state_of(tmp_path) == "running"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_reported(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*args: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match=r"cannot be locked \(no locks here\). Make sure that only one process"):
        record.begin(tmp_path, ["fit"])
    assert record.state_of(tmp_path) == "running"
    record._locks.pop(tmp_path.resolve()).release()  # as in another process
    assert record.state_of(tmp_path) == "killed"
