"""Override the optimizer and schedule settings of a checkpoint when training resumes."""

import math
import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer


class NewSettings:
    """Keep the optimizer and schedule settings of the config while Lightning restores those of a checkpoint.

    The optimizer's state, such as momentum, is restored. The schedule is set to the state that it would have if it had
    been used from the first step; ``ReduceLROnPlateau`` starts from scratch, unless only the length of training has
    changed.

    Args:
        forget_moments: Do not restore the optimizer's state, because its class has changed.
        length_only: Only the length of training or the global batch size has changed.
    """

    def __init__(self, forget_moments: bool, length_only: bool = False) -> None:
        self._forget_moments = forget_moments
        self._length_only = length_only
        self._checkpoint_groups: list[tuple[str, int]] = []  # name and number of parameters of each
        self._groups: list[dict[str, Any]] = []

    def take_from(self, checkpoint: dict[str, Any]) -> None:
        """Remove from the checkpoint the states that must not be restored."""
        schedules = checkpoint["lr_schedulers"]
        if self._length_only and schedules and all("num_bad_epochs" in state for state in schedules):
            return  # ReduceLROnPlateau does not depend on the length
        checkpoint["lr_schedulers"] = []
        state = checkpoint["optimizer_states"][0]
        self._checkpoint_groups = [(str(group.get("name")), len(group["params"])) for group in state["param_groups"]]
        if self._forget_moments:
            state["state"] = {}

    def keep(self, optimizer: Optimizer) -> None:
        """Store the param groups of the config.

        Raises:
            MisconfigurationException: The checkpoint divides the parameters into other groups.
        """
        self._groups = [
            {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        ]
        current = [(str(group.get("name")), len(group["params"])) for group in optimizer.param_groups]
        if self._checkpoint_groups and current != self._checkpoint_groups:
            before, after = (
                ", ".join(f"{name} ({count})" for name, count in groups)
                for groups in (self._checkpoint_groups, current)
            )
            raise MisconfigurationException(
                f"Expected param groups as in the checkpoint, whose momentum belongs to them: {before} (number of "
                f"parameters), but got {after}. Restore --model.param_groups, no_decay and layer_decay, or "
                "start a new run with --model.pretrained and the checkpoint."
            )

    def apply(self, trainer: Trainer, step: Callable[[Any, Any], None]) -> int:
        """Apply the settings of the config to the groups, and advance the schedule to the current step.

        Args:
            trainer: Trainer that has restored the checkpoint.
            step: Function that steps a schedule; called with the schedule and a metric.

        Returns:
            The number of steps that the current global batch size would have needed so far, minus the steps taken.
        """
        loop = trainer.fit_loop
        batches = loop.epoch_loop.batch_progress.current.ready if loop.restarted_mid_epoch else 0
        done, within = divmod(batches, int(trainer.num_training_batches))  # counts an epoch before its end
        epochs = trainer.current_epoch + done
        steps = epochs * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps += within // trainer.accumulate_grad_batches
        if not self._checkpoint_groups:  # no checkpoint was loaded, or all of its state is restored
            return steps - trainer.global_step
        for group, settings in zip(trainer.optimizers[0].param_groups, self._groups, strict=True):
            group.update(settings)
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau:
                done = steps if config.interval == "step" else epochs
                with warnings.catch_warnings():  # torch expects an optimizer step before each
                    warnings.filterwarnings(
                        "ignore", message="Detected call of `lr_scheduler.step", category=UserWarning
                    )
                    for _ in range(done // config.frequency):
                        step(config.scheduler, None)
        return steps - trainer.global_step
