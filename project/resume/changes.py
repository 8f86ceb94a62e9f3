"""Compare the settings of a resumed run with the command line. Imports no torch."""

from pathlib import Path
from typing import Any

from project.errors import RunError
from project.runs import record
from project.runs.config import differences, setting
from project.runs.options import OF_LENGTH, OF_STARTING

Changes = list[tuple[str, str, str]]  # dotted key, old value, new value


def changes_of(before: dict[str, Any], after: dict[str, Any]) -> Changes:
    """Return the differences between two configs, except options of a single start."""
    return [change for change in differences(before, after) if change[0] not in OF_STARTING]


def check_seed(changes: Changes) -> None:
    """Check that the seed has not changed.

    Raises:
        RunError: It has.
    """
    for key, old, new in changes:
        if key == "seed_everything":
            raise RunError(
                f"Expected --seed_everything {old} as before, but got {new}. Random states are restored from the "
                "checkpoint. To use another seed, start a new run."
            )


def check_unfinished(run: Path, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Check that a run is not finished.

    Raises:
        RunError: It is finished, and neither the length of training nor callbacks or max_time have changed.
    """
    if record.state_of(run) != "finished":
        return
    limits = [[_limit(config, key) for key in OF_LENGTH[:2]] for config in (before, after)]
    is_longer = any(new > old for old, new in zip(*limits, strict=True))
    if not is_longer and not any(
        key.startswith(("trainer.callbacks", "callbacks.", "trainer.max_time")) for key, *_ in changes_of(before, after)
    ):
        epochs, steps = limits[0]
        raise RunError(
            f"Expected an unfinished run, but {run} is finished: max_epochs {epochs:g}, max_steps {steps:g}. To resume "
            "it, increase --trainer.max_epochs or max_steps."
        )


def _limit(config: dict[str, Any], key: str) -> float:
    value = setting(config, key)
    return float("inf") if value in (None, -1) else float(value)
