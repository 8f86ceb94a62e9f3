import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from project.runs import lock as lock_module
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
    """Lock a file in another process, exclusively or shared."""
    command = [sys.executable, "-c", HOLD, str(file), str(seconds), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


def test_checking_a_lock_does_not_hold_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    file.touch()
    with another_holds(file, kind="SH"):  # as while a process checks the lock
        assert is_locked(file) is False
    with another_holds(file, 0.3, "SH"):
        acquire(file).close()


def test_a_file_is_locked_while_another_process_holds_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    assert is_locked(file) is False
    with another_holds(file):
        assert is_locked(file) is True
    assert is_locked(file) is False


def test_a_lock_that_is_released_soon_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".lock"
    with another_holds(file, 0.3):
        acquire(file).close()
    monkeypatch.setattr(lock_module, "TIMEOUT", 0.1)
    with another_holds(file), pytest.raises(LockedError):
        acquire(file)


def test_checking_a_run_needs_no_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    given = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": modes.append(mode) or given(path, mode))
    file = tmp_path / ".lock"
    file.touch()
    assert is_locked(file) is False
    assert modes == ["r"]  # the mode of a file does not restrict root, who may run the tests


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_run_is_checked_by_its_process_id(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*args: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match=r"cannot be locked, because its file system has no locks \(no locks here\)"):
        record.begin(tmp_path, ["fit"])
    assert record.state_of(tmp_path) == "running"
    info = record.read(tmp_path)
    record._active.pop(tmp_path.resolve()).lock.close()  # as in another process
    assert record.state_of(tmp_path) == "running"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for change in ({"pid": ended.pid}, {"pid": None}, {"host": "another"}):
        record._write(tmp_path, info | change)
        assert record.state_of(tmp_path) == "killed"
