"""Param groups by ordered name patterns: learning rate, decay, momentum, schedule, freezing."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_modules.optim.parameter_rules import assign, layers

OPTION = "--model.param_groups"


@dataclass
class ParamGroup:
    """Settings for the parameters whose names match a pattern.

    Args:
        pattern: Shell pattern (``*``, ``?``, ``[...]``) of names as in ``network.named_parameters()``, such as "fc3.*";
            several are separated by "|".
        lr_scale: Factor on the learning rate.
        lr: Learning rate instead of the optimizer's; the module's ``layer_decay`` does not apply.
        weight_decay: Weight decay instead of the optimizer's; the module's ``no_decay`` does not apply.
        momentum: Momentum instead of the optimizer's. ``OneCycle`` cycles it, unless its ``cycle_momentum`` is false.
        schedule: Function of the training's progress, from 0 to 1, that returns a factor on this learning rate, instead
            of the module's schedule.
        freeze: Do not train these parameters. The running statistics of batch norm are still updated.
        unfreeze_epoch: Freeze them until this epoch, counted from 0.
        options: Other options of the optimizer's groups, such as ``betas`` of Adam.
        name: Name in tables and logs; by default the pattern without its stars.
    """

    pattern: str
    lr_scale: float | None = None
    lr: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    schedule: Callable[[float], float] | None = None
    freeze: bool = False
    unfreeze_epoch: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        for key in ("lr", "lr_scale", "weight_decay", "momentum", "unfreeze_epoch"):
            if (getattr(self, key) or 0) < 0:
                raise MisconfigurationException(
                    f"Expected {key} >= 0 for param group {self.pattern!r}, but got {getattr(self, key)}."
                )
        if self.name is None:
            self.name = self.pattern.replace("*", "").strip(".") or "all"

    def matches(self, name: str, layer: nn.Module) -> bool:
        """Return whether this rule matches the parameter ``name``."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.pattern.split("|"))


OTHERS = ParamGroup("(all others)", name="default")  # the rule of parameters without one


@dataclass
class Group:
    """Parameters that share a rule, and so a group of the optimizer.

    Attributes:
        rule: First rule that matches the parameters, or ``OTHERS``.
        name: Name of the rule; followed by "/<layer>" with ``layer_decay``, and by "/no_decay" without weight decay.
        frozen: Whether they are never trained, because of the rule or of the network.
        lr_scale: Factor on the learning rate.
        options: Options of the optimizer for this group.
        parameters: Names as in ``network.named_parameters()``.
        lr: Learning rate before its schedule; set when the optimizer is built.
    """

    rule: ParamGroup
    name: str
    frozen: bool
    lr_scale: float
    options: dict[str, Any]
    parameters: list[str] = field(default_factory=list)
    lr: float = 0.0


def assign_groups(
    network: nn.Module, rules: Sequence[ParamGroup], no_decay: bool = False, layer_decay: float | None = None
) -> list[Group]:
    """Assign every parameter of a network to one group.

    Args:
        network: The network.
        rules: Ordered rules; the first whose pattern matches a parameter's name applies. Other parameters form the
            group "default".
        no_decay: Split groups whose rule sets no weight decay into weights, and norms and biases, "<name>/no_decay".
        layer_decay: Split groups whose rule sets no learning rate into layers, "<name>/<layer>". The learning rate of
            the n-th layer from the last one, which is the 0-th, is multiplied by ``layer_decay ** n``.

    Raises:
        MisconfigurationException: A rule applies to no parameter, or two groups have the same name.
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise MisconfigurationException(f"Expected 0 < --model.layer_decay <= 1, but got {layer_decay}.")
    layer_of = layers(network)
    top_down = list(dict.fromkeys(layer_of.values()))[::-1]
    groups: list[Group] = []
    for rule, names in zip([*rules, OTHERS], assign(network, rules, OPTION), strict=True):
        settings = {"lr": rule.lr, "weight_decay": rule.weight_decay, "momentum": rule.momentum}
        options = {key: value for key, value in settings.items() if value is not None} | rule.options
        of_rule: dict[tuple[str, bool], Group] = {}
        for name in names:
            parameter = network.get_parameter(name)
            frozen = rule.freeze or not parameter.requires_grad
            group = Group(rule, str(rule.name), frozen, 1.0 if rule.lr_scale is None else rule.lr_scale, dict(options))
            if layer_decay is not None and rule.lr is None and not frozen:
                group.lr_scale *= layer_decay ** top_down.index(layer_of[name])
                group.name += f"/{layer_of[name]}"
            if no_decay and rule.weight_decay is None and parameter.ndim < 2 and not frozen:
                group.options["weight_decay"] = 0.0
                group.name += "/no_decay"
            of_rule.setdefault((group.name, frozen), group).parameters.append(name)
        groups += of_rule.values()
    trained = [group.name for group in groups if not group.frozen]
    if len(set(trained)) < len(trained):
        raise MisconfigurationException(f"Expected {OPTION} with distinct names, but got {trained}: set name.")
    return groups
