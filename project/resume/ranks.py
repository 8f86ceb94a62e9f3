"""Ranks of distributed training, before and after a trainer exists, and how all of them exit after one has failed."""

import atexit
import os
import sys
import threading
import time

import torch
from lightning.pytorch.utilities import rank_zero_only

GRACE = 3.0  # seconds that a rank has to print its own error after rank zero exited
VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def world_size() -> int:
    """Return the number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the rank of this process."""
    return rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on the function


def is_rank_zero() -> bool:
    """Return whether this process is rank zero, which writes all files."""
    return rank() == 0 and all(os.environ.get(name, "0") == "0" for name in VARIABLES)


def follow_rank_zero() -> None:
    """End this process soon after rank zero exits, if Lightning launched it.

    Otherwise, it would wait in a collective until the timeout: half an hour, by default.
    """
    if "RANK" in os.environ or os.environ.get("LOCAL_RANK", "0") == "0":  # launched by torchrun, or not at all
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave_at_once(code: int) -> None:
    """Exit without the cleanup of collectives, which would wait for other ranks. Takes effect when Python exits."""
    if world_size() > 1:
        atexit.register(os._exit, code)
        atexit.register(sys.stdout.flush)  # called first
