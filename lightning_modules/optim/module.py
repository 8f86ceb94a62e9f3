"""A LightningModule with param groups, an optimizer and a schedule."""

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from torch import nn

from lightning_modules.optim.build import build_optimizer, build_scheduler, param_group_table
from lightning_modules.optim.param_groups import OTHERS, Group, ParamGroup, assign_groups
from lightning_modules.optim.schedules import Interval, progress, total_steps


class TrainableModule(LightningModule):
    """A network with param groups, an optimizer and a schedule; subclasses define the steps.

    Args:
        network: Network to train.
        optimizer: Class of the optimizer.
        lr_scheduler: Class of the schedule. ``ProgressLR``, ``OneCycle`` and torch's ``OneCycleLR`` get ``total_steps``
            from the trainer. The ``max_lr`` of ``OneCycleLR`` and ``CyclicLR`` applies to groups with the optimizer's
            own lr; for other groups it is scaled in proportion; a list is used as it is, without ``scale_lr``.
            ``ReduceLROnPlateau`` monitors ``val/loss``, or the ``monitor`` of lightning.pytorch.cli's class.
        scale_lr: Multiply all learning rates by the number of devices ("linear") or by its square root ("sqrt"),
            because each device adds a batch to a step (Goyal et al., 2017, "Accurate, Large Minibatch SGD"; Krizhevsky,
            2014, "One weird trick for parallelizing convolutional neural networks").
        lr_interval: Step the schedule every "step" or "epoch"; by default the interval that its class is designed for.
        param_groups: Ordered rules for learning rate, weight decay, freezing and so on, by parameter name.
        no_decay: Disable weight decay for one-dimensional parameters: norms and biases.
        layer_decay: Factor on the learning rate from each layer to the one below, whose features are more general. A
            layer is a module with its own weight of two or more dimensions, together with the norms up to the next.

    Raises:
        MisconfigurationException: The rules do not match the network.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        scale_lr: Literal["none", "linear", "sqrt"] = "none",
        lr_interval: Interval | None = None,
        param_groups: list[ParamGroup] | None = None,
        no_decay: bool = False,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.scale_lr = scale_lr
        self.lr_interval = lr_interval
        self.groups = assign_groups(network, param_groups or [], no_decay, layer_decay)
        self._own_schedules: dict[str, Group] = {}  # groups of the optimizer with their own schedule, by name
        self._progress = 0.0
        self._freeze()

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule, and print the groups.

        Raises:
            MisconfigurationException: The optimizer lacks an option of a group, or the trainer does not support them.
            ValueError: torch rejects the options of the optimizer or the schedule.
        """
        devices = self.trainer.world_size
        if devices > 1 and any(group.rule.unfreeze_epoch for group in self.groups):
            raise MisconfigurationException(
                f"Expected one device for unfreeze_epoch of --model.param_groups, but got {devices}: gradients of "
                "parameters that are unfrozen later would not be averaged. Set --trainer.devices 1."
            )
        own = [group for group in self.groups if group.rule.schedule is not None and not group.frozen]
        self._own_schedules = {group.name: group for group in own}
        if own:
            total_steps(self.trainer)  # raises an error if it is unknown
        factor = devices ** {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[self.scale_lr]
        optimizer = build_optimizer(self.make_optimizer, self.network, self.groups, factor)
        config: dict[str, Any] = {"optimizer": optimizer}
        if self.make_scheduler is not None:
            config["lr_scheduler"] = build_scheduler(self.make_scheduler, optimizer, self.trainer, self.lr_interval)
        if factor != 1 or [group.rule for group in self.groups] != [OTHERS]:
            rank_zero_only(rich_print)(param_group_table(self.network, self.groups, optimizer))
        return config

    def on_fit_start(self) -> None:
        if self.global_rank:  # otherwise dropout would be the same on each device
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_train_start(self) -> None:
        self._freeze()  # if a run resumes within an epoch, on_train_epoch_start is not called
        self._set_own_lrs(progress(self.trainer, at_start=True))

    def on_train_epoch_start(self) -> None:
        self._freeze()

    def on_train_batch_end(self, *args: Any) -> None:
        if self._own_schedules:
            self._set_own_lrs(progress(self.trainer))

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        super().lr_scheduler_step(scheduler, metric)
        self._set_own_lrs(self._progress)

    # Helpers

    def _freeze(self) -> None:
        """Freeze the groups whose rule says so, for good or until an epoch that has not begun."""
        for group in self.groups:
            if group.rule.freeze or group.rule.unfreeze_epoch:
                is_trained = not group.frozen and self.current_epoch >= (group.rule.unfreeze_epoch or 0)
                for name in group.parameters:
                    self.network.get_parameter(name).requires_grad_(is_trained)

    def _set_own_lrs(self, fraction: float) -> None:
        """Set the learning rates of the groups with their own schedule, for a progress of the training."""
        self._progress = fraction
        if self._own_schedules:
            for settings in self.trainer.optimizers[0].param_groups:
                if group := self._own_schedules.get(settings["name"]):
                    settings["lr"] = group.lr * group.rule.schedule(fraction)  # type: ignore[misc]  # it has a schedule
