"""Override the optimizer and schedule settings of a checkpoint when training resumes."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_modules.optim.schedules import steps_so_far
from project.resume.resume import Resume
from project.runs.options import OF_LENGTH, OF_TRAINING


def overrides(resume: Resume) -> list[Callback]:
    """Return a callback that overrides settings of the checkpoint if the command line changes some."""
    keys = [key for key, *_ in resume.changes if key.startswith(OF_TRAINING)]
    if resume.command != "fit" or resume.file is None or not (keys or not resume.state):
        return []  # a checkpoint of another program has no settings
    forget_moments = "model.init_args.optimizer.class_path" in keys
    return [OverrideSettings(forget_moments, bool(keys) and all(key in OF_LENGTH for key in keys))]


class OverrideSettings(Callback):
    """Resume with the optimizer and schedule settings of the config instead of those of the checkpoint.

    The optimizer's state, such as momentum, is restored. The schedule is set to the state that it would have if it had
    been used from the first step; ``ReduceLROnPlateau`` starts from scratch, unless only the length of training has
    changed.

    Args:
        forget_moments: Do not restore the optimizer's state, because its class has changed.
        length_only: Only the length of training or the global batch size has changed.
    """

    def __init__(self, forget_moments: bool, length_only: bool) -> None:
        self._forget_moments = forget_moments
        self._length_only = length_only
        self._checkpoint_groups: list[str] = []  # names
        self._settings: list[dict[str, Any]] = []  # of each group of the config

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remove the states that must not be restored."""
        schedules, states = checkpoint["lr_schedulers"], checkpoint["optimizer_states"]
        if self._length_only and schedules and all("num_bad_epochs" in schedule for schedule in schedules):
            return  # ReduceLROnPlateau does not depend on the length
        if len(states) != 1:
            return  # a custom training loop
        checkpoint["lr_schedulers"] = []
        self._checkpoint_groups = _names(states[0]["param_groups"])
        if self._forget_moments:
            states[0]["state"] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the settings of the config.

        Raises:
            MisconfigurationException: The checkpoint divides the parameters into other groups.
        """
        if not trainer.optimizers:
            return
        groups = trainer.optimizers[0].param_groups
        self._settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        if self._checkpoint_groups and _names(groups) != self._checkpoint_groups:
            before, after = (", ".join(names) for names in (self._checkpoint_groups, _names(groups)))
            raise MisconfigurationException(
                f"Expected param groups as in the checkpoint, with their momentum ({before}), but got {after}. "
                "Restore --model.param_groups, no_decay and layer_decay, or start a new run with --model.pretrained."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the settings of the config, and step the schedules up to the current step."""
        if not self._checkpoint_groups:
            return
        for group, settings in zip(trainer.optimizers[0].param_groups, self._settings, strict=True):
            group.update(settings)
        for config in trainer.lr_scheduler_configs:
            steps = 0 if config.reduce_on_plateau else steps_so_far(trainer, config.interval) // config.frequency
            with warnings.catch_warnings():  # torch expects an optimizer step before each
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
                for _ in range(steps):
                    pl_module.lr_scheduler_step(config.scheduler, None)


def _names(groups: list[dict[str, Any]]) -> list[str]:
    return [str(group.get("name")) for group in groups]
