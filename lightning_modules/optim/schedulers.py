"""Apply schedules to an optimizer's param groups: one for all groups, and separate ones for single groups."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

from lightning_modules.optim.build import unwrap
from lightning_modules.optim.monitors import is_of_training
from lightning_modules.optim.param_groups import ParamGroup, rule_of
from lightning_modules.optim.schedules import ProgressLR

Interval = Literal["step", "epoch"]


def build_scheduler(
    make: LRSchedulerCallable,
    optimizer: Optimizer,
    trainer: Trainer,
    rules: Sequence[ParamGroup] = (),
    interval: Interval | None = None,
    lr_factor: float = 1.0,
) -> dict[str, Any]:
    """Return the Lightning configuration of a schedule.

    Args:
        make: Class of the schedule, with its options.
        optimizer: Optimizer of the schedule.
        trainer: Trainer that defines the length of training.
        rules: Rules of the param groups.
        interval: When to step it; by default the interval that its class is designed for.
        lr_factor: Factor by which all learning rates of the optimizer were scaled; learning rates in the options of the
            schedule are scaled too.

    Raises:
        MisconfigurationException: The class rejects its options or the groups, or the length of training is unknown.
    """
    extra: dict[str, Any] = {}
    factory, arguments = unwrap(make)
    kind = factory if isinstance(factory, type) else object
    has_length = arguments.get("total_steps") is not None or arguments.get("epochs") is not None
    if issubclass(kind, OneCycleLR | ProgressLR) and not has_length:
        extra["total_steps"] = total_steps(trainer, interval)
    if issubclass(kind, OneCycleLR | CyclicLR):
        # one number for all groups would override their own learning rates
        for key in ("base_lr", "max_lr"):
            if isinstance(arguments.get(key), int | float):
                shares = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
                extra[key] = [arguments[key] * share * lr_factor for share in shares]
            elif key in arguments:
                extra[key] = [lr * lr_factor for lr in arguments[key]]
    try:
        scheduler = make(optimizer, **extra)
    except ValueError as error:
        names = ", ".join(group["name"] for group in optimizer.param_groups)
        raise MisconfigurationException(
            f"Expected --model.lr_scheduler to accept its options, {type(optimizer).__name__} and the param groups "
            f"{names}, but got: {error}."
        ) from error
    own = any(rule.momentum is not None or "betas" in rule.options for rule in rules)
    if own and getattr(scheduler, "cycle_momentum", False):
        raise MisconfigurationException(
            f"Expected cycle_momentum: false of {type(scheduler).__name__}, because --model.param_groups set "
            "momentum or betas, but got true."
        )
    by_step = isinstance(scheduler, OneCycleLR | CyclicLR | ProgressLR)
    config: dict[str, Any] = {"scheduler": scheduler, "interval": interval or ("step" if by_step else "epoch")}
    if isinstance(scheduler, ReduceLROnPlateau):
        config["monitor"] = getattr(scheduler, "monitor", "val/loss")  # Lightning's own class has this attribute
        if config["interval"] == "epoch" and not is_of_training(config["monitor"]):
            config["frequency"] = epochs_to_validation(trainer)  # in between, the metric is missing or outdated
    return config


def total_steps(trainer: Trainer, interval: Interval | None = None) -> int:
    """Return the number of steps of a schedule over the whole training."""
    steps = trainer.max_epochs if interval == "epoch" else trainer.estimated_stepping_batches
    if steps is None or not 0 < steps < float("inf"):
        needed = "--trainer.max_epochs" if interval == "epoch" else "--trainer.max_epochs or --trainer.max_steps"
        raise MisconfigurationException(
            f"Expected a known length of training for a schedule over the whole training, but got none. Set {needed}."
        )
    return int(steps)


def epochs_to_validation(trainer: Trainer) -> int:
    """Return the number of epochs between validations.

    Raises:
        MisconfigurationException: The number of epochs varies.
    """
    if trainer.check_val_every_n_epoch is not None:
        return trainer.check_val_every_n_epoch
    trainer.fit_loop.setup_data()  # determines the length of an epoch
    every, batches = trainer.val_check_batch, trainer.num_training_batches
    if every is None or (every > batches and every % batches):
        raise MisconfigurationException(
            "Expected validation in every epoch, or at the end of every n-th, for ReduceLROnPlateau, but got "
            f"--trainer.val_check_interval {trainer.val_check_interval} with epochs of {batches} batches. Set "
            "--trainer.check_val_every_n_epoch."
        )
    return int(every / batches) if every > batches else 1


class GroupSchedules:
    """Learning rates of groups with their own schedule, and of groups that were added later.

    Args:
        optimizer: Optimizer with its original groups.
        rules: Rules of the groups; some have a ``schedule``.
        trainer: Trainer that defines the length of training.

    Attributes:
        base_lrs: Learning rate that the schedule of a group multiplies, by the group's name.
    """

    def __init__(self, optimizer: Optimizer, rules: Sequence[ParamGroup], trainer: Trainer) -> None:
        self._built = len(optimizer.param_groups)
        self._shapes: dict[str, Callable[[float], float]] = {
            group["name"]: shape
            for group in optimizer.param_groups
            if (shape := rule_of(group, rules).schedule) is not None
        }
        self.base_lrs = {
            group["name"]: group["lr"] for group in optimizer.param_groups if group["name"] in self._shapes
        }
        self._total_steps = total_steps(trainer) if self._shapes else 0

    def set(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rates of the groups with their own schedule, which depend only on the step."""
        if self._shapes:
            progress = min(step / self._total_steps, 1.0)
            for group in optimizer.param_groups:
                if (name := group.get("name")) in self._shapes:
                    group["lr"] = self.base_lrs[name] * self._shapes[name](progress)

    def step(self, optimizer: Optimizer, step_scheduler: Callable[[], Any]) -> None:
        """Step the schedule for its original groups; groups that were added later change in proportion."""
        groups = optimizer.param_groups
        first = next((group for group in groups if group.get("name") not in self._shapes), groups[0])
        before = first["lr"]
        optimizer.param_groups = groups[: self._built]  # torch's schedules fail with additional groups
        step_scheduler()
        optimizer.param_groups = groups
        for group in groups[self._built :]:
            if before:  # at 0 the proportion is undefined; keep the previous one
                group["proportion"] = group["lr"] / before
            if "proportion" in group:
                group["lr"] = group["proportion"] * first["lr"]
