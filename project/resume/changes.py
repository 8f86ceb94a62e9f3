"""What a command line changes of the run that training goes on with. No torch in here."""

from pathlib import Path
from typing import Any

from project.errors import RunError
from project.runs import record
from project.runs.config import differences, setting

OF_LENGTH = (  # of training, and of its steps
    *("trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches", "trainer.accumulate_grad_batches"),
    "data.init_args.batch_size",
)
# settings that a checkpoint holds, too: its values would win unless these are said to have changed
OF_TRAINING = (
    *("model.init_args.optimizer", "model.init_args.lr_scheduler", "model.init_args.lr_interval"),
    *("model.init_args.param_groups", "model.init_args.no_decay", "model.init_args.layer_decay"),
    *("model.init_args.scale_lr", "trainer.devices", "trainer.num_nodes", *OF_LENGTH),
)
OF_STARTING = ("run", "runs_dir", "ckpt_path", "config", "data.init_args.overwrite_split")  # no settings

Changes = list[tuple[str, str, str]]  # dotted key, before, now


def changes_of(before: dict[str, Any], now: dict[str, Any]) -> Changes:
    """Return in what two configs differ, but for what concerns a start alone."""
    return [one for one in differences(before, now) if one[0] not in OF_STARTING]


def check_seed(changes: Changes) -> None:
    """Check that training from a checkpoint is not to have another seed.

    Raises:
        RunError: It is.
    """
    for key, old, new in changes:
        if key == "seed_everything":
            raise RunError(
                f"Expected --seed_everything {old} as before, but got {new}: order and random numbers go on where the "
                "checkpoint has them. For another seed, start a new run."
            )


def check_unfinished(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that there is something left to train of a run.

    Raises:
        RunError: It is finished, and neither its length nor what may have ended it has changed.
    """
    if record.state_of(run) != "finished":
        return
    limits = [[_limit(config, key) for key in OF_LENGTH[:2]] for config in (before, now)]
    longer = any(new > old for old, new in zip(*limits, strict=True))
    if not longer and not any(
        one[0].startswith(("trainer.callbacks", "trainer.max_time")) for one in changes_of(before, now)
    ):
        epochs, steps = limits[0]
        raise RunError(
            f"Expected a run that is not finished, but {run} is: max_epochs {epochs:g}, max_steps {steps:g}. To train "
            "on, give a larger --trainer.max_epochs or max_steps."
        )


def _limit(config: dict[str, Any], key: str) -> float:
    value = setting(config, key)
    return float("inf") if value in (None, -1) else float(value)
