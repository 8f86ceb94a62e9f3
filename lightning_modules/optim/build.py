"""Build an optimizer for the groups of a network, and its schedule."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

from lightning_modules.optim.param_groups import Group
from lightning_modules.optim.schedules import Interval, ProgressLR, total_steps


def build_optimizer(
    make: OptimizerCallable, network: nn.Module, groups: Sequence[Group], lr_factor: float = 1.0
) -> Optimizer:
    """Build an optimizer for the groups that are not frozen, in their order.

    Its groups also have "name"; "scheduled", whether the module's schedule applies; and, if they have their own
    schedule, "initial_lr", which that is a factor on.

    Args:
        make: Class of the optimizer, with its options.
        network: Network to train.
        groups: Groups of its parameters.
        lr_factor: Factor on all learning rates.

    Raises:
        MisconfigurationException: The optimizer rejects its options or parameters, or lacks an option of a group, or
            parameters are in no group.
    """
    known = {name for group in groups for name in group.parameters}
    if new := [name for name, _ in network.named_parameters() if name not in known]:
        raise MisconfigurationException(
            f"Expected the parameters that the network had when it was built, but it also has {', '.join(new)}. Add "
            "them in the class of the network."
        )
    groups = [group for group in groups if group.trained(network)]
    settings = [
        {"params": group.trained(network), "name": group.name, "scheduled": group.rule.schedule is None} | group.options
        for group in groups
    ]
    try:
        optimizer = make(settings)
    except ValueError as error:
        # of torch's Muon
        hint = " lightning_modules.optim.Muon takes them all." if "only supports 2D parameters" in str(error) else ""
        raise MisconfigurationException(
            f"Expected --model.optimizer to accept its options and the param groups of this network, but got: {error}."
            f"{hint}"
        ) from error
    for group, built in zip(groups, optimizer.param_groups, strict=True):
        for key in group.options:
            if key not in optimizer.defaults:
                near = get_close_matches(key, optimizer.defaults, 3, cutoff=0.3) or list(optimizer.defaults)
                raise MisconfigurationException(
                    f"Expected options of {type(optimizer).__name__} for param group {group.name!r}, but it has no "
                    f"{key}. Among its options are {', '.join(near)}."
                )
        built["lr"] *= group.lr_scale * lr_factor
        if group.rule.schedule is not None:
            built["initial_lr"] = built["lr"]
    return optimizer


def build_scheduler(
    make: LRSchedulerCallable,
    optimizer: Optimizer,
    trainer: Trainer,
    interval: Interval | None = None,
    lr_factor: float = 1.0,
) -> dict[str, Any]:
    """Return the Lightning configuration of a schedule for the groups without their own.

    Args:
        make: Class of the schedule, with its options.
        optimizer: Optimizer of ``build_optimizer``.
        trainer: Trainer that defines the length of training.
        interval: When to step it; by default the interval that its class is designed for.
        lr_factor: Factor on the learning rates of its options, that of ``build_optimizer``.

    Raises:
        MisconfigurationException: The class rejects its options or the groups, the length of training is unknown, or
            ReduceLROnPlateau would be stepped where its metric is missing.
    """
    factory, arguments = unwrap(make)
    kind = factory if isinstance(factory, type) else object
    extra: dict[str, Any] = {}
    if issubclass(kind, OneCycleLR | ProgressLR) and not (arguments.get("total_steps") or arguments.get("epochs")):
        extra["total_steps"] = total_steps(trainer, interval or "step")
    with scheduled_groups(optimizer) as groups:
        for key, lr in arguments.items():
            if issubclass(kind, OneCycleLR | CyclicLR) and key in ("base_lr", "max_lr"):
                if isinstance(lr, list):
                    extra[key] = [each * lr_factor for each in lr]
                else:  # one number for all groups would override their own learning rates, which contain the factor
                    extra[key] = [lr * group["lr"] / optimizer.defaults["lr"] for group in groups]
        names = ", ".join(group["name"] for group in groups)
        keys = [key for key in ("momentum", "betas") if key in optimizer.defaults]
        own = any(group[key] != optimizer.defaults[key] for group in groups for key in keys)
        try:
            scheduler = make(optimizer, **extra)
        except ValueError as error:
            raise MisconfigurationException(
                f"Expected --model.lr_scheduler to accept its options, {type(optimizer).__name__} and the param groups "
                f"{names}, but got: {error}."
            ) from error
    if own and getattr(scheduler, "cycle_momentum", False):
        raise MisconfigurationException(
            f"Expected cycle_momentum: false of {type(scheduler).__name__}, because --model.param_groups set "
            "momentum or betas, but got true."
        )
    by_step = isinstance(scheduler, OneCycleLR | CyclicLR | ProgressLR)
    config: dict[str, Any] = {"scheduler": scheduler, "interval": interval or ("step" if by_step else "epoch")}
    if isinstance(scheduler, ReduceLROnPlateau):
        if interval == "step":
            raise MisconfigurationException("Expected --model.lr_interval epoch for ReduceLROnPlateau, but got step.")
        config["monitor"] = getattr(scheduler, "monitor", "val/loss")  # Lightning's own class has this attribute
        if not config["monitor"].startswith("train"):
            config["frequency"] = trainer.check_val_every_n_epoch  # in between, the metric is missing or outdated
            if config["frequency"] is None:
                raise MisconfigurationException(
                    "Expected --trainer.check_val_every_n_epoch for ReduceLROnPlateau, but got null."
                )
    return config


@contextmanager
def scheduled_groups(optimizer: Optimizer) -> Iterator[list[dict[str, Any]]]:
    """Show a schedule of torch only the groups that it applies to; it fails with groups that callbacks add later.

    The learning rates of these change in proportion to that of the first scheduled group.

    Yields:
        The scheduled groups: all groups of an optimizer that is not from ``build_optimizer``.
    """
    groups = optimizer.param_groups
    scheduled = [group for group in groups if group.get("scheduled")] or groups
    added = [group for group in groups if "scheduled" not in group and scheduled is not groups]
    before = scheduled[0]["lr"]
    optimizer.param_groups = scheduled
    try:
        yield scheduled
    finally:
        optimizer.param_groups = groups
    for group in added:
        if before:  # at 0 the proportion is undefined; keep the previous one
            group["proportion"] = group["lr"] / before
        if "proportion" in group:
            group["lr"] = group["proportion"] * scheduled[0]["lr"]


def unwrap(factory: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class or function that a callable wraps, in Python or by jsonargparse, and its arguments."""
    if not isinstance(factory, partial):
        return factory, {}
    classes = [each for each in (factory.func, *factory.args) if isinstance(each, type)]
    return (classes[0] if classes else factory.func), factory.keywords
