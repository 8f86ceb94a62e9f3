"""A lock on a file, which the operating system frees when the process that holds it ends, however it ends."""

import errno
import fcntl
import time
import warnings
from pathlib import Path
from typing import IO

HELD = (errno.EACCES, errno.EAGAIN)  # what POSIX lets a lock of another process be told by
PATIENCE = 1.0  # seconds; whoever asks for a lock has a share in it for a moment


class LockedError(Exception):
    """Another process holds the lock."""


def acquire(file: Path) -> IO[str]:
    """Open and lock a file for as long as it stays open; warn where its file system has no locks.

    Raises:
        LockedError: Another process holds it.
    """
    lock = file.open("a")
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if error.errno not in HELD:  # as on Lustre, unless it is mounted with -o flock
                warnings.warn(
                    f"Nothing keeps a second process from training {file.parent}: its file system has no locks "
                    f"({error.strerror}). See to it that one alone does.",
                    stacklevel=3,
                )
                return lock
            if time.monotonic() > end:
                lock.close()
                raise LockedError from error
        time.sleep(0.02)


def is_locked(file: Path) -> bool | None:
    """Tell whether another process holds a file; None if its file system has no locks, or it may not be read.

    Not to be asked by the process that holds it: the lock would be free behind that.
    """
    try:
        lock = file.open()
    except FileNotFoundError:
        return False
    except PermissionError:
        return None
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may ask at the same time
        except OSError as error:
            return True if error.errno in HELD else None
    return False
