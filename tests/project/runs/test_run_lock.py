import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from project.runs import lock as held
from project.runs import record
from project.runs.lock import LockedError, acquire, is_locked

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.lockf(file, getattr(fcntl, f"LOCK_{sys.argv[3]}"))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another_holds(file: Path, seconds: float = 99, kind: str = "EX") -> Iterator[None]:
    """Let another process hold a file, or a share in it."""
    command = [sys.executable, "-c", HOLD, str(file), str(seconds), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


def test_who_asks_for_a_lock_is_not_taken_for_its_holder(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    file.touch()
    with another_holds(file, kind="SH"):  # as long as a process asks
        assert is_locked(file) is False
    with another_holds(file, 0.3, "SH"):
        acquire(file).close()


def test_a_file_is_held_while_another_process_holds_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    assert is_locked(file) is False
    with another_holds(file):
        assert is_locked(file) is True
    assert is_locked(file) is False


def test_a_lock_that_is_freed_within_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".lock"
    with another_holds(file, 0.3):
        acquire(file).close()
    monkeypatch.setattr(held, "PATIENCE", 0.1)
    with another_holds(file), pytest.raises(LockedError):
        acquire(file)


def test_a_run_is_asked_for_with_no_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    given = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": modes.append(mode) or given(path, mode))
    file = tmp_path / ".lock"
    file.touch()
    assert is_locked(file) is False
    assert modes == ["r"]  # a test may be run by root, whom no file's mode keeps from writing


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_run_is_told_by_its_process(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*args: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match=r"Nothing keeps a second process from training .*\(no locks here\)"):
        record.begin(tmp_path, ["fit"])
    assert record.state_of(tmp_path) == "running"
    found = record.read(tmp_path)
    record._held.pop(tmp_path.resolve()).lock.close()  # as another process sees it
    assert record.state_of(tmp_path) == "running"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for told in ({"pid": ended.pid}, {"pid": None}, {"host": "another"}):
        record._write(tmp_path, found | told)
        assert record.state_of(tmp_path) == "killed"
