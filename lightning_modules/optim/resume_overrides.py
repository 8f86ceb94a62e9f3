"""Go on from a checkpoint with another learning rate, schedule or the like than it was made with."""

import math
import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer


class NewSettings:
    """What the config says of optimizer and schedule, kept while Lightning restores what a checkpoint says.

    The optimizer's momentum and the like are the checkpoint's. The schedule stands where it would if it had been this
    one from the first step; ``ReduceLROnPlateau`` begins anew, unless only the length of training has changed.

    Args:
        forget_moments: Leave momentum and the like, too: the optimizer is of another class.
        length_only: No more has changed than how long training is, or how many images its steps take.
    """

    def __init__(self, forget_moments: bool, length_only: bool = False) -> None:
        self._forget_moments = forget_moments
        self._length_only = length_only
        self._saved: list[tuple[str, int]] = []  # name and number of parameters of each group in the checkpoint
        self._groups: list[dict[str, Any]] = []

    def take_from(self, checkpoint: dict[str, Any]) -> None:
        """Leave in the checkpoint only what is to be restored."""
        schedules = checkpoint["lr_schedulers"]
        if self._length_only and schedules and all("num_bad_epochs" in one for one in schedules):
            return  # ReduceLROnPlateau, which knows of no length
        checkpoint["lr_schedulers"] = []
        state = checkpoint["optimizer_states"][0]
        self._saved = [(str(group.get("name")), len(group["params"])) for group in state["param_groups"]]
        if self._forget_moments:
            state["state"] = {}

    def keep(self, optimizer: Optimizer) -> None:
        """Remember the groups as the config made them.

        Raises:
            MisconfigurationException: They divide the parameters otherwise than the checkpoint's.
        """
        self._groups = [{key: one for key, one in group.items() if key != "params"} for group in optimizer.param_groups]
        now = [(str(group.get("name")), len(group["params"])) for group in optimizer.param_groups]
        if self._saved and now != self._saved:
            before, after = (", ".join(f"{name} ({count})" for name, count in one) for one in (self._saved, now))
            raise MisconfigurationException(
                f"Expected param groups as in the checkpoint, whose momentum belongs to them: {before} (number of "
                f"parameters), but got {after}. Leave --model.param_groups, no_decay and layer_decay as they were, or "
                "start a new run with --model.pretrained and the checkpoint."
            )

    def apply(self, trainer: Trainer, step: Callable[[Any, Any], None]) -> int:
        """Bring groups and schedule to where training is.

        Args:
            trainer: Which has restored the checkpoint.
            step: Steps a schedule; takes it, and a metric.

        Returns:
            How many steps more than were made there would be by now, had all been of the size that they have now.
        """
        loop = trainer.fit_loop
        batches = loop.epoch_loop.batch_progress.current.ready if loop.restarted_mid_epoch else 0
        done, within = divmod(batches, int(trainer.num_training_batches))  # an epoch that is about to end is done
        epochs = trainer.current_epoch + done
        steps = epochs * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps += within // trainer.accumulate_grad_batches
        if not self._saved:  # no checkpoint was loaded, or all of it is restored
            return steps - trainer.global_step
        for group, wanted in zip(trainer.optimizers[0].param_groups, self._groups, strict=True):
            group.update(wanted)
        for config in trainer.lr_scheduler_configs:
            if not config.reduce_on_plateau:
                done = steps if config.interval == "step" else epochs
                with warnings.catch_warnings():  # torch expects a step of the optimizer before each
                    warnings.filterwarnings(
                        "ignore", message="Detected call of `lr_scheduler.step", category=UserWarning
                    )
                    for _ in range(done // config.frequency):
                        step(config.scheduler, None)
        return steps - trainer.global_step
