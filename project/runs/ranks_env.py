"""Read the rank of this process from environment variables. Imports no torch."""

import os


def is_first_process() -> bool:
    """Return whether no environment variable gives this process a rank other than zero."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def started_by_lightning() -> bool:
    """Return whether Lightning launched this process from another rank."""
    return "RANK" not in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
