"""Several processes that train together: which of them speaks of an error, and how all end once one has failed."""

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

GRACE = 30  # seconds that a process may go on without the one that started it
LINGER = 3  # seconds that the process which counts the failed waits for others to fail of the same


def rank() -> int:
    """Return which process of a training this is."""
    return rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on the function


def is_rank_zero() -> bool:
    """Tell whether this is the process that writes, before there is a trainer to ask."""
    return rank() == 0 and is_first_process()


def is_loss_of_another(error: BaseException) -> bool:
    """Tell whether an error says no more than that another process is gone."""
    if world_size() == 1:
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


@cache
def is_first_to_fail() -> bool:
    """Tell whether no other process of this training failed before; True if nobody can be asked.

    The first to fail says why; of the others, which then fail for want of it or of the same, nothing is to be said.
    """
    store = _store()
    try:
        return store is None or store.add(_failed(), 1) == 1
    except RuntimeError:
        return True


def reason_of_first(reason: str) -> str:
    """Return why the first process to fail did: for ``reason``, if this is the first.

    Args:
        reason: Why this one fails; the others learn it from here.
    """
    store, key = _store(), f"{_failed()}/reason"
    try:
        if store is None or is_first_to_fail():
            if store is not None:
                store.set(key, reason)
            return reason
        return store.get(key).decode()
    except RuntimeError:  # whoever kept it is gone
        return reason


def leave_at_once(code: int) -> None:
    """End this process, at its exit, without the wait for others that is part of a collective's tidy end."""
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
    """End this process soon after the one that started it, if that was to care for it and is gone.

    In a collective it would hang until the collective's time is over: half an hour, by default.
    """
    if not _launched_by_torchrun() and os.environ.get("LOCAL_RANK", "0") == "0":  # a person, or a scheduler that cares
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def _store() -> "torch.distributed.TCPStore | None":
    """Return what all processes of this training can reach, or None."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if world_size() == 1 or address is None or port is None:
        return None
    try:
        timeout = timedelta(seconds=LINGER)
        return torch.distributed.TCPStore(address, int(port), None, False, timeout, wait_for_workers=False)
    except RuntimeError:  # whoever kept it is gone
        return None


def _wait_for_others() -> None:
    """Let those who fail at the same time find out that they are not the first."""
    store, end = _store(), time.monotonic() + LINGER
    while store is not None and time.monotonic() < end and store.add(_failed(), 0) < world_size():
        time.sleep(0.1)


def _failed() -> str:
    return f"project/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def _launched_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
