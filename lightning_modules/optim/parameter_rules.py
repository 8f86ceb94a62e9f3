"""Ordered rules over the parameters of a network: the first that matches one gets it."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


class Rule(Protocol):
    """What holds for the parameters whose name, as in ``named_parameters()``, or layer match."""

    pattern: str

    def matches(self, name: str, layer: nn.Module) -> bool:
        """Tell whether this rule is for the parameter ``name`` of ``layer``."""

    @property
    def label(self) -> str:
        """What it matches, in words for an error."""


def assign(network: nn.Module, rules: Sequence[Rule], option: str) -> list[list[str]]:
    """Return the names of the parameters that each rule gets, the first match winning, and last those of no rule.

    Args:
        network: The network.
        rules: The rules, in their order.
        option: Where they come from.

    Raises:
        MisconfigurationException: A rule gets no parameter.
    """
    layers = {name: network.get_submodule(name.rpartition(".")[0]) for name, _ in network.named_parameters()}
    groups: list[list[str]] = [[] for _ in [*rules, None]]
    for name, layer in layers.items():
        first = next((number for number, rule in enumerate(rules) if rule.matches(name, layer)), -1)
        groups[first].append(name)
    for rule, group in zip(rules, groups, strict=False):
        if not group:
            taken = any(rule.matches(name, layer) for name, layer in layers.items())
            why = "all that it matches are taken by rules above it" if taken else "it matches none"
            near = get_close_matches(rule.pattern, layers, 5, cutoff=0.3) or list(layers)[-5:]
            kinds = dict.fromkeys(type(layer).__name__ for layer in layers.values())
            raise MisconfigurationException(
                f"Expected {rule.label} of {option} to get a parameter of the network, but {why}. Its layers with "
                f"parameters are {', '.join(kinds)}; among its {len(layers)} parameters are {', '.join(near)}."
            )
    return groups
