"""Param groups by ordered name patterns: learning rate, decay, momentum, schedule, freezing."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.markup import escape
from rich.table import Column, Table
from torch import nn
from torch.optim import Optimizer

from lightning_modules.optim.parameter_rules import assign

OPTION = "--model.param_groups"
FIELDS = ("lr", "weight_decay", "momentum")  # optimizer options that are fields of a rule


@dataclass
class ParamGroup:
    """Settings for the parameters whose names match a pattern.

    Args:
        pattern: Shell pattern (``*``, ``?``, ``[...]``) of names as in ``network.named_parameters()``, such as "fc3.*".
        lr_scale: Factor on the optimizer's learning rate.
        lr: Learning rate instead of the optimizer's; the module's ``layer_decay`` does not apply.
        weight_decay: Weight decay instead of the optimizer's; the module's ``no_decay`` does not apply.
        momentum: Momentum instead of the optimizer's.
        schedule: Function of the training's progress, from 0 to 1, that returns a factor on this learning rate; it
            replaces the module's schedule. If that is ``OneCycle``, the momentum of this group is still cycled.
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
        if self.lr is not None and self.lr_scale is not None:
            raise MisconfigurationException(
                f"Expected lr or lr_scale for param group {self.pattern!r}, but got both. Remove one."
            )
        numbers = ("lr", "lr_scale", "weight_decay", "momentum", "unfreeze_epoch")
        if self.freeze and (self.options or any(getattr(self, key) is not None for key in (*numbers, "schedule"))):
            raise MisconfigurationException(
                f"Param group {self.pattern!r} is frozen, so its {', '.join(numbers)}, schedule and options have no "
                "effect. Remove them or freeze."
            )
        for key in numbers:
            if (getattr(self, key) or 0) < 0:
                raise MisconfigurationException(
                    f"Expected {key} >= 0 for param group {self.pattern!r}, but got {getattr(self, key)}."
                )
        if self.name is None:
            self.name = self.pattern.replace("*", "").strip(".") or "all"
        if "/" in self.name:  # "/" separates the parts of a rule's parameters
            raise MisconfigurationException(f"Expected a name of a param group without '/', but got {self.name!r}.")

    def matches(self, name: str, layer: nn.Module) -> bool:
        """Return whether this rule matches the parameter ``name``."""
        return fnmatch.fnmatchcase(name, self.pattern)

    @property
    def label(self) -> str:
        """What the rule matches, as text for an error message."""
        return f"pattern {self.pattern!r}"


OTHERS = ParamGroup("(all others)", name="default")  # parameters without a rule


def freeze(network: nn.Module, rules: Sequence[ParamGroup]) -> dict[str, int]:
    """Disable the gradients of the parameters that ``rules`` freeze.

    Returns:
        The epoch from which each parameter with an ``unfreeze_epoch`` is trained, unless the network froze it.
    """
    later: dict[str, int] = {}
    for rule, names in zip(rules, assign(network, rules, OPTION), strict=False):
        for name in names:
            if rule.freeze:
                network.get_parameter(name).requires_grad_(False)
            elif rule.unfreeze_epoch and network.get_parameter(name).requires_grad:
                later[name] = rule.unfreeze_epoch
    return later


def layers(network: nn.Module) -> dict[str, str]:
    """Return the layer of each parameter, in the order of ``named_parameters()``.

    A layer is a module with its own weight of two or more dimensions, together with the norms up to the next.
    """
    layer_of: dict[str, str] = {}
    layer = None
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0] or type(network).__name__
        if layer is None or parameter.ndim > 1:
            layer = owner
        layer_of[name] = layer
    return layer_of


def build_param_groups(
    network: nn.Module,
    rules: Sequence[ParamGroup],
    optimizer: Optimizer,
    no_decay: bool = False,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimizer; every parameter that is not frozen is in exactly one.

    Args:
        network: The network.
        rules: Ordered rules; the first whose pattern matches a parameter's name applies. Other parameters form the
            group "default".
        optimizer: An optimizer of the same class and with the same options.
        no_decay: Split groups whose rule sets no weight decay into weights, and norms and biases, "<name>/no_decay".
        layer_decay: Split groups whose rule sets no learning rate into layers, "<name>/<layer>". The learning rate of
            the last layer is multiplied by 1, that of the layer before by ``layer_decay``, then by its square, and so
            on.

    Raises:
        MisconfigurationException: A rule applies to no parameter or sets an option that the optimizer does not have,
            two rules have the same name, or all parameters are frozen.
    """
    if len({*(rule.name for rule in rules), "default"}) < len(rules) + 1:
        rule_names = [rule.name for rule in rules]
        raise MisconfigurationException(f"Expected {OPTION} with distinct names, but got {rule_names}: set name.")
    if no_decay:
        expect_option(optimizer, "weight_decay", "--model.no_decay")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise MisconfigurationException(f"Expected 0 < --model.layer_decay <= 1, but got {layer_decay}.")
    layer_of = layers(network)
    bottom_up = list(dict.fromkeys(layer_of.values()))
    groups: dict[str, dict[str, Any]] = {}
    for rule, names in zip([*rules, OTHERS], assign(network, rules, OPTION), strict=True):
        settings = {key: getattr(rule, key) for key in FIELDS if getattr(rule, key) is not None}
        for key in (*settings, *rule.options):
            expect_option(optimizer, key, f"param group {rule.pattern!r}", in_options=key in rule.options)
        if rule.lr_scale is not None:
            settings["lr"] = optimizer.defaults["lr"] * rule.lr_scale
        for name in names:
            parameter = network.get_parameter(name)
            if not parameter.requires_grad:
                continue
            group: dict[str, Any] = {"params": [], "name": rule.name, **rule.options, **settings}
            if layer_decay is not None and rule.lr is None:
                depth = len(bottom_up) - 1 - bottom_up.index(layer_of[name])
                group["lr"] = group.get("lr", optimizer.defaults["lr"]) * layer_decay**depth
                group["name"] += f"/{layer_of[name]}"
            if no_decay and rule.weight_decay is None and parameter.ndim < 2:
                group["weight_decay"] = 0.0
                group["name"] += "/no_decay"
            groups.setdefault(group["name"], group)["params"].append(parameter)
    if not groups:
        raise MisconfigurationException("All parameters are frozen, so nothing is left to train.")
    return list(groups.values())


def expect_option(optimizer: Optimizer, key: str, user: str, in_options: bool = False) -> None:
    """Raise if an optimizer does not have an option, or if it is in ``options`` although a rule has a field for it."""
    if key not in optimizer.defaults:
        near = get_close_matches(key, optimizer.defaults, 3, cutoff=0.3) or list(optimizer.defaults)
        raise MisconfigurationException(
            f"Expected options of {type(optimizer).__name__} for {user}, but it has no {key}. Among its options are "
            f"{', '.join(near)}."
        )
    if in_options and key in FIELDS:
        raise MisconfigurationException(f"Expected {key} of {user} as a field, but got it in its options.")


def rule_of(group: dict[str, Any], rules: Sequence[ParamGroup]) -> ParamGroup:
    """Return the rule that a group comes from."""
    name = group["name"].partition("/")[0]
    return next((rule for rule in rules if rule.name == name), OTHERS)


def param_group_table(
    network: nn.Module,
    rules: Sequence[ParamGroup],
    groups: Sequence[dict[str, Any]],
    base_lrs: Mapping[str, float] | None = None,
) -> Table:
    """Return a table of an optimizer's groups and frozen parameters; ``base_lrs`` are for groups with own schedules."""
    rows: list[list[str]] = []

    def add(name: str, pattern: str, parameters: Sequence[nn.Parameter], lr: str, decay: str, notes: list[str]) -> None:
        count = sum(parameter.numel() for parameter in parameters)
        rows.append([name, pattern, f"{count:,}", lr, decay, ", ".join(notes)])

    for group in groups:
        rule = rule_of(group, rules)
        # the maximum of a cycle, the first of a schedule, or the constant one
        lr = (base_lrs or {}).get(group["name"], group.get("max_lr", group.get("initial_lr", group["lr"])))
        notes = [f"{key}={value}" for key, value in rule.options.items()]
        if "max_momentum" in group:
            notes.append(f"momentum {group['base_momentum']:g} to {group['max_momentum']:g}")
        elif group.get("momentum"):
            notes.append(f"momentum {group['momentum']:g}")
        if rule.schedule is not None:
            notes.append(getattr(rule.schedule, "__name__", str(rule.schedule)))
        if rule.unfreeze_epoch:
            notes.append(f"frozen until epoch {rule.unfreeze_epoch}")
        add(group["name"], rule.pattern, group["params"], f"{lr:g}", f"{group.get('weight_decay', 0):g}", notes)
    for rule, names in zip([*rules, OTHERS], assign(network, rules, OPTION), strict=True):
        frozen = [parameter for parameter in map(network.get_parameter, names) if not parameter.requires_grad]
        if frozen:
            add(str(rule.name), rule.pattern, frozen, "frozen", "-", [])

    titles = ["group", "pattern", "parameters", "lr", "weight decay", "more"]
    num_columns = len(titles) if any(row[-1] for row in rows) else -1
    table = Table(*(Column(name, overflow="fold") for name in titles[:num_columns]), title="Parameter groups")
    for row in rows:
        table.add_row(*map(escape, row[:num_columns]))
    return table
