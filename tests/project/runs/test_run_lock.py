import errno
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import Timeout

from project.runs import lock as lock_module
from project.runs import record
from project.runs.lock import acquire, is_locked

HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another_holds(file: Path, seconds: float = 99) -> Iterator[None]:
    """Lock a file in another process, which is killed at the end."""
    command = [sys.executable, "-c", HOLD, str(file), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            yield
        finally:
            other.kill()


def test_a_file_is_locked_while_another_process_holds_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    assert is_locked(file) is False
    assert not file.exists()
    with another_holds(file):
        assert is_locked(file) is True
    with file.open() as check:  # another process checks it, too
        fcntl.flock(check, fcntl.LOCK_SH)
        assert is_locked(file) is False


def test_a_lock_that_is_released_soon_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".lock"
    with another_holds(file, 0.3):
        acquire(file).release()
    monkeypatch.setattr(lock_module, "TIMEOUT", 0.1)
    with another_holds(file), pytest.raises(Timeout):
        acquire(file)


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
