"""A file lock that the operating system releases when its process exits."""

import os
import time
import warnings
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout, lock_descriptor

TIMEOUT = 1.0  # seconds; is_locked holds the lock for a moment
CHECKS = 5  # of is_locked, because another process may be checking the same lock


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
            f"{file.parent} cannot be locked, because its file system has no locks ({error.strerror}). "
            "Make sure that only one process trains it.",
            stacklevel=3,
        )
    return lock


def is_locked(file: Path) -> bool | None:
    """Return whether a process holds the lock; None if locks are not supported, or the file cannot be read."""
    try:
        # NFS locks only files that are open for writing; a run of another user may be read-only
        with file.open("r+" if os.access(file, os.W_OK) else "r") as lock:
            for _ in range(CHECKS):
                if lock_descriptor(lock.fileno(), blocking=False):
                    return False
                time.sleep(0.01)
            return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
