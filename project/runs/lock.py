"""A file lock that the operating system releases when its process exits."""

import fcntl
import warnings
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

TIMEOUT = 1.0  # seconds; is_locked holds the lock for a moment


def acquire(file: Path) -> BaseFileLock:
    """Lock a file until it is released; warn if its file system does not support locks.

    Raises:
        Timeout: Another process holds the lock.
    """
    lock = FileLock(file, TIMEOUT, poll_interval=0.02, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        if error.filename is not None:  # the file cannot be opened
            raise
        warnings.warn(  # such as on Lustre without -o flock
            f"{file.parent} cannot be locked ({error.strerror}). Make sure that only one process trains it: others "
            "consider it killed.",
            stacklevel=3,
        )
    return lock


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock; False if locks are not supported, or the file cannot be read."""
    try:
        with file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several processes may check at once
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
