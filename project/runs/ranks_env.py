"""Which of several processes that train together this is, as far as the environment tells. No torch in here."""

import os


def is_first_process() -> bool:
    """Tell whether whoever started this process gives it no rank but zero."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def started_by_lightning() -> bool:
    """Tell whether another process of the same training started this one with its command line."""
    return "RANK" not in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
