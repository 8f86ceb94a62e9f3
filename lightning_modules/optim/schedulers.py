"""What brings schedules to an optimizer's param groups: of all groups together, and of single ones."""

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
    """Return a schedule as Lightning wants it configured.

    Args:
        make: Class of the schedule, with its options.
        optimizer: Whose groups it is for.
        trainer: Which knows the length of the training.
        rules: What the groups come from.
        interval: When to step it; by default what its class is made for.
        lr_factor: What all learning rates of the optimizer were multiplied by; those of the class's options follow.

    Raises:
        MisconfigurationException: The class refuses its options or the groups, or training has no end.
    """
    extra: dict[str, Any] = {}
    made, given = unwrap(make)
    kind = made if isinstance(made, type) else object
    known = given.get("total_steps") is not None or given.get("epochs") is not None
    if issubclass(kind, OneCycleLR | ProgressLR) and not known:
        extra["total_steps"] = total_steps(trainer, interval)
    if issubclass(kind, OneCycleLR | CyclicLR):
        # one number for all groups would undo their own learning rates
        for key in ("base_lr", "max_lr"):
            if isinstance(given.get(key), int | float):
                shares = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
                extra[key] = [given[key] * share * lr_factor for share in shares]
            elif key in given:
                extra[key] = [one * lr_factor for one in given[key]]
    try:
        scheduler = make(optimizer, **extra)
    except ValueError as error:
        names = ", ".join(group["name"] for group in optimizer.param_groups)
        raise MisconfigurationException(
            f"Expected --model.lr_scheduler to take its options, {type(optimizer).__name__} and the param groups "
            f"{names}, but it says: {error}."
        ) from error
    own = any(rule.momentum is not None or "betas" in rule.options for rule in rules)
    if own and getattr(scheduler, "cycle_momentum", False):
        raise MisconfigurationException(
            f"Expected cycle_momentum: false of {type(scheduler).__name__}, because --model.param_groups set "
            "momentum or betas, but got true."
        )
    by_step = isinstance(scheduler, OneCycleLR | CyclicLR | ProgressLR)
    configured: dict[str, Any] = {"scheduler": scheduler, "interval": interval or ("step" if by_step else "epoch")}
    if isinstance(scheduler, ReduceLROnPlateau):
        configured["monitor"] = getattr(scheduler, "monitor", "val/loss")  # Lightning's own class has one to set
        if configured["interval"] == "epoch" and not is_of_training(configured["monitor"]):
            configured["frequency"] = epochs_to_validation(trainer)  # in between there is no value, or an old one
    return configured


def total_steps(trainer: Trainer, interval: Interval | None = None) -> int:
    """Return how often a schedule over the whole training is stepped."""
    steps = trainer.max_epochs if interval == "epoch" else trainer.estimated_stepping_batches
    if steps is None or not 0 < steps < float("inf"):
        needed = "--trainer.max_epochs" if interval == "epoch" else "--trainer.max_epochs or --trainer.max_steps"
        raise MisconfigurationException(
            "Expected a known length of the training for a schedule that runs over all of it, but it has none. Give "
            f"{needed}."
        )
    return int(steps)


def epochs_to_validation(trainer: Trainer) -> int:
    """Return after how many epochs there is a new validation each time.

    Raises:
        MisconfigurationException: After some more and some less.
    """
    if trainer.check_val_every_n_epoch is not None:
        return trainer.check_val_every_n_epoch
    trainer.fit_loop.setup_data()  # or the length of an epoch is not known
    every, batches = trainer.val_check_batch, trainer.num_training_batches
    if every is None or (every > batches and every % batches):
        raise MisconfigurationException(
            "Expected validation in each epoch, or at the end of each n-th, for ReduceLROnPlateau, but got "
            f"--trainer.val_check_interval {trainer.val_check_interval} with epochs of {batches} batches. Give "
            "--trainer.check_val_every_n_epoch."
        )
    return int(every / batches) if every > batches else 1


class GroupSchedules:
    """Learning rates that the schedule of all groups does not set: of groups with their own, and of groups added since.

    Args:
        optimizer: As it was built: with these groups alone.
        rules: What they come from; some have a ``schedule``.
        trainer: Which knows the length of the training.

    Attributes:
        base_lrs: What the schedule of a group is a factor on, by its name.
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
        """Set the learning rates of the groups with a schedule of their own, which depend on the step alone."""
        if self._shapes:
            progress = min(step / self._total_steps, 1.0)
            for group in optimizer.param_groups:
                if (name := group.get("name")) in self._shapes:
                    group["lr"] = self.base_lrs[name] * self._shapes[name](progress)

    def step(self, optimizer: Optimizer, step_scheduler: Callable[[], Any]) -> None:
        """Step the schedule of the groups that it was made for; groups added since follow in proportion."""
        groups = optimizer.param_groups
        first = next((group for group in groups if group.get("name") not in self._shapes), groups[0])
        before = first["lr"]
        optimizer.param_groups = groups[: self._built]  # torch's schedules fail if there are more
        step_scheduler()
        optimizer.param_groups = groups
        for group in groups[self._built :]:
            if before:  # at 0 the proportion cannot be told; the one before is kept
                group["proportion"] = group["lr"] / before
            if "proportion" in group:
                group["lr"] = group["proportion"] * first["lr"]
