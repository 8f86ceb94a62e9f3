"""Distributed training: how all ranks exit after one has failed."""

import atexit
import os
import sys
import threading
import time
from functools import cache

import torch
from lightning.pytorch.utilities import rank_zero_only

from project.resume.signals import world_size
from project.runs.ranks_env import is_first_process

GRACE = 30  # seconds that a process may run after its parent exited


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


def leave_at_once(code: int) -> None:
    """Exit without the cleanup of collectives, which would wait for other ranks. Takes effect when Python exits."""
    if world_size() == 1:
        return

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)


@cache
def follow_parent() -> None:
    """End this process soon after its parent exits, if the parent is torchrun or Lightning's launcher.

    Otherwise, it would hang in a collective until the timeout: half an hour, by default.
    """
    launched = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("LOCAL_RANK", "0") != "0"
    if not launched:  # but started by a user or a scheduler
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
