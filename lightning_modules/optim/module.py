"""A LightningModule with param groups, an optimizer and a schedule."""

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from torch import nn
from torch.optim import LBFGS

from lightning_modules.optim.build import build_optimizer, build_scheduler, scheduled_groups
from lightning_modules.optim.param_groups import OTHERS, ParamGroup, assign_groups
from lightning_modules.optim.schedules import Interval, progress, total_steps
from lightning_modules.optim.table import param_group_table


class TrainableModule(LightningModule):
    """A network with param groups, an optimizer and a schedule; subclasses define the steps.

    Args:
        network: Network to train.
        optimizer: Class of the optimizer.
        lr_scheduler: Class of the schedule. ``ProgressLR``, ``OneCycle`` and torch's ``OneCycleLR`` get ``total_steps``
            from the trainer. The ``max_lr`` of ``OneCycleLR`` and ``CyclicLR`` applies to groups with the optimizer's
            own lr; for other groups it is scaled in proportion. ``ReduceLROnPlateau`` monitors ``val/loss``, or the
            ``monitor`` of lightning.pytorch.cli's class. The learning rate of a param group that a callback adds during
            training changes in proportion to the others.
        scale_lr: Multiply all learning rates by the number of devices ("linear") or by its square root ("sqrt"),
            because each device adds a batch to a step (Goyal et al., 2017, "Accurate, Large Minibatch SGD"; Krizhevsky,
            2014, "One weird trick for parallelizing convolutional neural networks").
        lr_interval: Step the schedule every "step" or "epoch"; by default the interval that its class is designed for.
        param_groups: Ordered rules for learning rate, weight decay, freezing and so on, by parameter name.
        no_decay: Disable weight decay for one-dimensional parameters: norms and biases.
        layer_decay: Factor on the learning rate from each layer to the one below, whose features are more general. A
            layer is a module with its own weight of two or more dimensions, together with the norms up to the next.

    Attributes:
        groups: The groups of the network's parameters, each with its rule, assigned once.

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
        self._schedules = {group.name: group.rule.schedule for group in self.groups if group.rule.schedule is not None}
        for group in self.groups:
            if group.frozen:
                group.require_grad(network, False)

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule, and print the groups.

        Raises:
            MisconfigurationException: The optimizer or the schedule rejects its options or the groups, the schedule
                applies to no group, or the trainer does not support them.
        """
        devices = self.trainer.world_size
        factor = {"none": 1.0, "linear": float(devices), "sqrt": devices**0.5}[self.scale_lr]
        self._unfreeze(None)  # an optimizer of a fit after another one has all groups
        optimizer = build_optimizer(self.make_optimizer, self.network, self.groups, factor)
        self._check_trainer(optimizer)
        config: dict[str, Any] = {"optimizer": optimizer}
        scheduled = [group["scheduled"] for group in optimizer.param_groups]
        if not all(scheduled):
            total_steps(self.trainer)  # raises an error if it is unknown
        if self.make_scheduler is not None:
            if not any(scheduled):
                raise MisconfigurationException(
                    "Expected a group without its own schedule for --model.lr_scheduler, but all groups of "
                    "--model.param_groups have one. Set --model.lr_scheduler null, or remove a group's schedule."
                )
            config["lr_scheduler"] = build_scheduler(
                self.make_scheduler, optimizer, self.trainer, self.lr_interval, factor
            )
        if factor != 1 or [group.rule for group in self.groups] != [OTHERS]:
            rank_zero_only(rich_print)(param_group_table(self.network, self.groups, optimizer))
        return config

    def on_fit_start(self) -> None:
        if self.global_rank:  # otherwise dropout would be the same on each device
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_train_start(self) -> None:
        self._unfreeze(self.current_epoch)  # if a run resumes within an epoch, on_train_epoch_start is not called
        self._set_own_lrs(at_start=True)

    def on_train_epoch_start(self) -> None:
        self._unfreeze(self.current_epoch)

    def on_train_batch_end(self, *args: Any) -> None:
        self._set_own_lrs()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        with scheduled_groups(scheduler.optimizer):
            super().lr_scheduler_step(scheduler, metric)

    # Beyond Lightning's hooks

    @property
    def backbone(self) -> nn.ModuleList:
        """All children with parameters except the last, for lightning.pytorch.callbacks.BackboneFinetuning."""
        return nn.ModuleList([child for child in self.network.children() if list(child.parameters())][:-1])

    # Helpers

    def _unfreeze(self, epoch: int | None) -> None:
        """Freeze the groups that are trained only from a later epoch, or none of them; train the others."""
        for group in self.groups:
            if group.rule.unfreeze_epoch and not group.frozen:
                group.require_grad(self.network, epoch is None or epoch >= group.rule.unfreeze_epoch)

    def _set_own_lrs(self, at_start: bool = False) -> None:
        """Set the learning rates of the groups with their own schedule."""
        if not self._schedules:
            return
        for settings in self.trainer.optimizers[0].param_groups:
            if (schedule := self._schedules.get(settings.get("name", ""))) is not None:
                settings["lr"] = settings["initial_lr"] * schedule(progress(self.trainer, at_start))

    def _check_trainer(self, optimizer: Any) -> None:
        trainer = self.trainer
        if isinstance(optimizer, LBFGS) and trainer.accumulate_grad_batches > 1:
            raise MisconfigurationException(
                "Expected --trainer.accumulate_grad_batches 1 for LBFGS, which computes the gradients of a batch "
                f"several times, but got {trainer.accumulate_grad_batches}. Use a larger --data.batch_size."
            )
        epochs = trainer.max_epochs or 0
        late = [group.name for group in self.groups if (group.rule.unfreeze_epoch or 0) >= epochs > 0]
        if late:
            rank_zero_warn(f"Training ends before the unfreeze_epoch of {', '.join(late)}, so they are never trained.")
        if trainer.world_size > 1 and any(group.rule.unfreeze_epoch for group in self.groups):
            raise MisconfigurationException(
                f"Expected one device for unfreeze_epoch of --model.param_groups, but got {trainer.world_size}: "
                "gradients of parameters that are unfrozen later would not be averaged. Set --trainer.devices 1."
            )
