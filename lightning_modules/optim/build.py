"""Build an optimizer for the groups of a network, its schedule, and a table of the groups."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.markup import escape
from rich.table import Column, Table
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

from lightning_modules.optim.param_groups import Group
from lightning_modules.optim.schedules import Interval, ProgressLR, total_steps


def build_optimizer(
    make: OptimizerCallable, network: nn.Module, groups: Sequence[Group], lr_factor: float = 1.0
) -> Optimizer:
    """Build an optimizer for the groups that are not frozen, with their names, and set the ``lr`` of each group."""
    known = {name for group in groups for name in group.parameters}
    if new := [name for name, _ in network.named_parameters() if name not in known]:
        raise MisconfigurationException(
            f"Expected the parameters that the network had when the module was built, but it also has {', '.join(new)}."
        )
    groups = [group for group in groups if not group.frozen]
    settings = [{"params": [*map(network.get_parameter, group.parameters)], "name": group.name} for group in groups]
    optimizer = make([each | group.options for each, group in zip(settings, groups, strict=True)])
    for group, built in zip(groups, optimizer.param_groups, strict=True):
        if unknown := [key for key in group.options if key not in optimizer.defaults]:
            raise MisconfigurationException(
                f"Expected options of {type(optimizer).__name__} for param group {group.name!r}, but got "
                f"{', '.join(unknown)}. Its options are {', '.join(optimizer.defaults)}."
            )
        group.lr = built["lr"] = built["lr"] * group.lr_scale * lr_factor
    return optimizer


def build_scheduler(
    make: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer, interval: Interval | None = None
) -> dict[str, Any]:
    """Return the Lightning configuration of a schedule, stepped at the interval that its class is designed for."""
    factory, arguments = unwrap(make)
    extra: dict[str, Any] = {}
    kind = factory if isinstance(factory, type) else object
    if issubclass(kind, OneCycleLR | ProgressLR) and not (arguments.get("total_steps") or arguments.get("epochs")):
        extra["total_steps"] = total_steps(trainer, interval or "step")
    for key in ("base_lr", "max_lr") if issubclass(kind, OneCycleLR | CyclicLR) else ():
        # a number would override the learning rates of the groups
        if isinstance(lr := arguments.get(key), int | float):
            extra[key] = [lr * group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
    scheduler = make(optimizer, **extra)
    by_step = isinstance(scheduler, OneCycleLR | CyclicLR | ProgressLR)
    config: dict[str, Any] = {"scheduler": scheduler, "interval": interval or ("step" if by_step else "epoch")}
    if isinstance(scheduler, ReduceLROnPlateau):
        config["monitor"] = getattr(scheduler, "monitor", "val/loss")  # Lightning's own class has this attribute
        if interval == "step":
            raise MisconfigurationException("Expected --model.lr_interval epoch for ReduceLROnPlateau, but got step.")
        if not config["monitor"].startswith("train"):
            config["frequency"] = trainer.check_val_every_n_epoch  # in between, the metric is missing or outdated
            if config["frequency"] is None:
                raise MisconfigurationException(
                    "Expected --trainer.check_val_every_n_epoch for ReduceLROnPlateau, but got null."
                )
    return config


def param_group_table(network: nn.Module, groups: Sequence[Group], optimizer: Optimizer) -> Table:
    """Return a table of the groups, with their learning rates: the peak of a cycle, or else the initial one."""
    titles = ("group", "pattern", "parameters", "lr", "weight decay", "more")
    table = Table(*(Column(title, overflow="fold") for title in titles), title="Parameter groups")
    built = {settings["name"]: settings for settings in optimizer.param_groups}
    for group in groups:
        rule, cells = group.rule, ["frozen", "-", ""]
        if not group.frozen:
            settings = built[group.name]
            notes = [f"{key}={settings[key]}" for key in group.options if key not in ("lr", "weight_decay")]
            if rule.schedule is not None:
                notes.append(getattr(rule.schedule, "__name__", str(rule.schedule)))
            if rule.unfreeze_epoch:
                notes.append(f"frozen until epoch {rule.unfreeze_epoch}")
            lr = settings.get("max_lr", group.lr) if rule.schedule is None else group.lr
            cells = [f"{lr:g}", f"{settings.get('weight_decay', 0):g}", ", ".join(notes)]
        count = sum(network.get_parameter(name).numel() for name in group.parameters)
        table.add_row(*map(escape, (group.name, rule.pattern, f"{count:,}", *cells)))
    return table


def unwrap(factory: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class or function that a callable wraps, in Python or by jsonargparse, and its arguments."""
    if not isinstance(factory, partial):
        return factory, {}
    classes = [each for each in (factory.func, *factory.args) if isinstance(each, type)]
    return (classes[0] if classes else factory.func), factory.keywords
