"""Ordered name patterns that give each layer its own learning rate and weight decay, or freeze it."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.markup import escape
from rich.table import Table
from torch import nn


@dataclass
class ParamGroup:
    """What holds for the parameters whose name matches a pattern.

    Args:
        pattern: Shell pattern (``*``, ``?``, ``[...]``) of names as in ``network.named_parameters()``, as "fc3.*".
        lr_scale: Factor on the optimizer's learning rate.
        lr: Learning rate instead of the optimizer's.
        weight_decay: Weight decay instead of the optimizer's.
        freeze: Do not train these parameters. The running statistics of a batch norm go on moving.
        name: Name in tables and logs; by default the pattern without its stars.
    """

    pattern: str
    lr_scale: float | None = None
    lr: float | None = None
    weight_decay: float | None = None
    freeze: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr_scale is not None:
            raise MisconfigurationException(
                f"Expected lr or lr_scale for param group {self.pattern!r}, but got both. Take one away."
            )
        if self.freeze and (self.lr, self.lr_scale, self.weight_decay) != (None, None, None):
            raise MisconfigurationException(
                f"Param group {self.pattern!r} is frozen, so its lr, lr_scale and weight_decay have no effect. "
                "Take them or freeze away."
            )
        for key in ("lr", "lr_scale", "weight_decay"):
            if (getattr(self, key) or 0) < 0:
                raise MisconfigurationException(
                    f"Expected {key} >= 0 for param group {self.pattern!r}, but got {getattr(self, key)}."
                )
        if self.name is None:
            self.name = self.pattern.replace("*", "").strip(".") or "all"


def freeze(network: nn.Module, rules: Sequence[ParamGroup]) -> None:
    """Stop the gradients of the parameters that ``rules`` freeze."""
    for rule, names in zip(rules, assign(network, rules), strict=False):
        for name in names:
            if rule.freeze:
                network.get_parameter(name).requires_grad_(False)


def assign(network: nn.Module, rules: Sequence[ParamGroup]) -> list[list[str]]:
    """Return the names of the parameters that each rule gets, the first match winning, and last those of no rule.

    Raises:
        MisconfigurationException: A rule gets no parameter, or two have one name.
    """
    groups: list[list[str]] = [[] for _ in [*rules, None]]
    all_names = [name for name, _ in network.named_parameters()]
    for name in all_names:
        for rule, group in zip(rules, groups, strict=False):
            if fnmatch.fnmatchcase(name, rule.pattern):
                group.append(name)
                break
        else:
            groups[-1].append(name)
    for rule, group in zip(rules, groups, strict=False):
        if not group:
            taken = any(fnmatch.fnmatchcase(name, rule.pattern) for name in all_names)
            why = "all that it matches are taken by patterns above it" if taken else "it matches none"
            near = get_close_matches(rule.pattern, all_names, 5, cutoff=0.3) or all_names[-5:]
            raise MisconfigurationException(
                f"Expected pattern {rule.pattern!r} of --model.param_groups to get a parameter of the network, but "
                f"{why}. Among its {len(all_names)} parameters are {', '.join(near)}."
            )
    names = [rule.name for rule in rules]
    if len({*names, "default"}) < len(names) + 1:
        raise MisconfigurationException(
            f"Expected --model.param_groups with distinct names, but got {names}: set name."
        )
    return groups


def build_param_groups(network: nn.Module, rules: Sequence[ParamGroup], lr: float) -> list[dict[str, Any]]:
    """Return groups for an optimizer: every parameter that is not frozen, by a rule or by itself, is in exactly one.

    Args:
        network: The network.
        rules: Ordered; the first whose pattern matches a parameter's name gets it. The rest are the group "default".
        lr: Learning rate of the optimizer, which ``lr_scale`` multiplies.

    Raises:
        MisconfigurationException: A rule gets no parameter, or nothing is left to train.
    """
    groups: list[dict[str, Any]] = []
    for rule, names in zip([*rules, ParamGroup("*", name="default")], assign(network, rules), strict=True):
        names = [name for name in names if network.get_parameter(name).requires_grad]
        if rule.freeze or not names:
            continue
        group: dict[str, Any] = {"params": [network.get_parameter(name) for name in names], "name": rule.name}
        if rule.lr is not None or rule.lr_scale is not None:
            group["lr"] = rule.lr if rule.lr is not None else lr * (rule.lr_scale or 0.0)
        if rule.weight_decay is not None:
            group["weight_decay"] = rule.weight_decay
        groups.append(group)
    if not groups:
        raise MisconfigurationException("All parameters are frozen, so nothing is left to train.")
    return groups


def param_group_table(network: nn.Module, rules: Sequence[ParamGroup], groups: Sequence[dict[str, Any]]) -> Table:
    """Return a table of an optimizer's groups and the frozen parameters."""
    table = Table("group", "pattern", "tensors", "parameters", "lr", "weight decay", title="Parameter groups")
    patterns = {rule.name: rule.pattern for rule in rules}
    for group in groups:
        sizes = [parameter.numel() for parameter in group["params"]]
        lr, decay = group.get("initial_lr", group["lr"]), group.get("weight_decay", 0)
        pattern = patterns.get(group["name"], "(all others)")
        table.add_row(
            escape(group["name"]), escape(pattern), f"{len(sizes)}", f"{sum(sizes):,}", f"{lr:g}", f"{decay:g}"
        )
    others = ParamGroup("(all others)", name="default")
    for rule, names in zip([*rules, others], assign(network, rules), strict=True):
        parameters = [network.get_parameter(name) for name in names]
        sizes = [parameter.numel() for parameter in parameters if not parameter.requires_grad]
        if sizes:
            table.add_row(
                escape(str(rule.name)), escape(rule.pattern), f"{len(sizes)}", f"{sum(sizes):,}", "frozen", "-"
            )
    return table
