"""A file lock that the operating system releases when its process exits."""

import errno
import fcntl
import time
import warnings
from pathlib import Path
from typing import IO

HELD = (errno.EACCES, errno.EAGAIN)  # of fcntl, by POSIX, if another process holds a lock
TIMEOUT = 1.0  # seconds; is_locked holds a shared lock for a moment


class LockedError(Exception):
    """Another process holds the lock."""


def acquire(file: Path) -> IO[str]:
    """Open and lock a file until it is closed; warn if its file system does not support locks.

    Raises:
        LockedError: Another process holds the lock.
    """
    lock = file.open("a")
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if error.errno not in HELD:  # such as on Lustre without -o flock
                warnings.warn(
                    f"{file.parent} cannot be locked, because its file system has no locks ({error.strerror}). "
                    "Make sure that only one process trains it.",
                    stacklevel=3,
                )
                return lock
            if time.monotonic() > end:
                lock.close()
                raise LockedError from error
        time.sleep(0.02)


def is_locked(file: Path) -> bool | None:
    """Return whether another process holds the lock; None if locks are not supported, or the file cannot be read.

    The process that holds the lock must not call this: closing the file would release the lock.
    """
    try:
        lock = file.open()
    except FileNotFoundError:
        return False
    except PermissionError:
        return None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that several processes can check at once
        except OSError as error:
            return True if error.errno in HELD else None
    return False
