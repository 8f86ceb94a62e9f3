"""Ordered rules for the parameters of a network; the first match applies."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn


def assign(network: nn.Module, rules: Sequence[Any], option: str) -> list[list[str]]:
    """Return the names of the parameters of each rule, by first match, and at the end those without a rule.

    A rule has a ``pattern``, and ``matches(name, layer)`` for the name and the layer of a parameter.

    Raises:
        MisconfigurationException: A rule of ``option`` applies to no parameter.
    """
    owners = {name: network.get_submodule(name.rpartition(".")[0]) for name, _ in network.named_parameters()}
    groups: list[list[str]] = [[] for _ in [*rules, None]]
    for name, layer in owners.items():
        first = next((i for i, rule in enumerate(rules) if rule.matches(name, layer)), -1)
        groups[first].append(name)
    for i, rule in enumerate(rules):
        if not groups[i]:
            is_assigned = any(rule.matches(name, layer) for name, layer in owners.items())
            why = "earlier rules match all of its parameters" if is_assigned else "it matches none"
            near = get_close_matches(rule.pattern, owners, 5, cutoff=0.3) or list(owners)[-5:]
            kinds = dict.fromkeys(type(layer).__name__ for layer in owners.values())
            raise MisconfigurationException(
                f"Expected rule {i + 1} of {option}, pattern {rule.pattern!r}, to match a parameter, but {why}. Layers "
                f"are {', '.join(kinds)}; among their {len(owners)} parameters are {', '.join(near)}."
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
