"""Distributed training: which rank reports an error, and how all ranks exit after one has failed."""

import atexit
import os
import sys
import threading
import time
from datetime import timedelta
from functools import cache

import torch
from lightning.pytorch.utilities import rank_zero_only

from project.resume.signals import world_size
from project.runs.ranks_env import is_first_process

GRACE = 30  # seconds that a process may run after its parent exited
LINGER = 3  # seconds that rank zero, which hosts the store, waits for other ranks to fail


def rank() -> int:
    """Return the rank of this process."""
    return rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on the function


def is_rank_zero() -> bool:
    """Return whether this process is rank zero, which writes all files. Needs no trainer."""
    return rank() == 0 and is_first_process()


def is_loss_of_another(error: BaseException) -> bool:
    """Return whether an error only reports that another rank exited."""
    if world_size() == 1:
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@cache
def is_first_to_fail() -> bool:
    """Return whether this rank is the first to fail; True if the store cannot be reached.

    Only the first rank reports its error: the others fail as a consequence, or for the same reason.
    """
    store = _store()
    try:
        return store is None or store.add(_failed(), 1) == 1
    except RuntimeError:
        return True


def reason_of_first(reason: str) -> str:
    """Return why the first rank to fail failed.

    Args:
        reason: Why this rank failed. The first rank to fail stores it for the others.
    """
    store, key = _store(), f"{_failed()}/reason"
    try:
        if store is None or is_first_to_fail():
            if store is not None:
                store.set(key, reason)
            return reason
        return store.get(key).decode()
    except RuntimeError:  # the process that hosts the store exited
        return reason


def leave_at_once(code: int) -> None:
    """Exit without the cleanup of collectives, which would wait for other ranks. Takes effect when Python exits."""
    if world_size() == 1:
        return

    def leave() -> None:
        if rank() == 0 and not _launched_by_torchrun():
            _wait_for_others()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)


@cache
def follow_parent() -> None:
    """End this process soon after its parent exits, if the parent is torchrun or Lightning's launcher.

    Otherwise, it would hang in a collective until the timeout: half an hour, by default.
    """
    if not _launched_by_torchrun() and os.environ.get("LOCAL_RANK", "0") == "0":  # started by a user or a scheduler
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def _store() -> "torch.distributed.TCPStore | None":
    """Return the key-value store that all ranks share, or None if it cannot be reached."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if world_size() == 1 or address is None or port is None:
        return None
    try:
        timeout = timedelta(seconds=LINGER)
        return torch.distributed.TCPStore(address, int(port), None, False, timeout, wait_for_workers=False)
    except RuntimeError:  # the process that hosts the store exited
        return None


def _wait_for_others() -> None:
    """Keep the store alive while ranks that fail at the same time check whether they are the first."""
    store, end = _store(), time.monotonic() + LINGER
    while store is not None and time.monotonic() < end and store.add(_failed(), 0) < world_size():
        time.sleep(0.1)


def _failed() -> str:
    return f"project/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def _launched_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
