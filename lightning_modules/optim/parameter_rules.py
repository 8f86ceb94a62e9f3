"""Ordered rules for the parameters of a network; the first match applies."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


class Rule(Protocol):
    """Settings for parameters that match by layer or by name as in ``named_parameters()``."""

    pattern: str

    def matches(self, name: str, layer: nn.Module) -> bool:
        """Return whether this rule matches the parameter ``name`` of ``layer``."""

    @property
    def label(self) -> str:
        """What the rule matches, as text for an error message."""


def assign(network: nn.Module, rules: Sequence[Rule], option: str) -> list[list[str]]:
    """Return the names of the parameters of each rule, by first match, and at the end those without a rule.

    Args:
        network: Network with the parameters.
        rules: Ordered rules.
        option: Option of the rules, for error messages.

    Raises:
        MisconfigurationException: A rule applies to no parameter.
    """
    layers = {name: network.get_submodule(name.rpartition(".")[0]) for name, _ in network.named_parameters()}
    groups: list[list[str]] = [[] for _ in [*rules, None]]
    for name, layer in layers.items():
        first = next((number for number, rule in enumerate(rules) if rule.matches(name, layer)), -1)
        groups[first].append(name)
    for rule, group in zip(rules, groups, strict=False):
        if not group:
            is_assigned = any(rule.matches(name, layer) for name, layer in layers.items())
            why = "earlier rules match all of its parameters" if is_assigned else "it matches none"
            near = get_close_matches(rule.pattern, layers, 5, cutoff=0.3) or list(layers)[-5:]
            kinds = dict.fromkeys(type(layer).__name__ for layer in layers.values())
            raise MisconfigurationException(
                f"Expected {rule.label} of {option} to match a parameter of the network, but {why}. Layers with "
                f"parameters are {', '.join(kinds)}; among its {len(layers)} parameters are {', '.join(near)}."
            )
    return groups


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
