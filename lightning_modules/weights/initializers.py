"""Initialise a network's parameters by ordered rules."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.markup import escape
from rich.table import Column, Table
from torch import Tensor, nn

from lightning_modules.optim.parameter_rules import assign

OPTION = "--model.initializers"

Method = Literal[
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "uniform",
    "normal",
    "trunc_normal",
    "constant",
    "eye",
    "dirac",
    "orthogonal",
    "sparse",
]


@dataclass
class Initializer:
    """Initialisation of the parameters whose layer and name match.

    Args:
        method: Function of ``torch.nn.init``, without its last underscore.
        layer: Shell pattern (``*``, ``?``, ``[...]``) of the layer's class or one of its bases, such as "Conv2d".
        pattern: Shell pattern of names as in ``network.named_parameters()``, such as "*.bias".
        arguments: Arguments of that function, such as ``{std: 0.01}``. ``gain`` may also be a nonlinearity for
            ``torch.nn.init.calculate_gain``, such as "relu".
    """

    method: Method
    layer: str = "*"
    pattern: str = "*"
    arguments: dict[str, int | float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value}' for name, value in self.arguments.items())})"

    def matches(self, name: str, layer: nn.Module) -> bool:
        """Return whether this rule matches the parameter ``name`` of ``layer``."""
        classes = (cls.__name__ for cls in type(layer).__mro__)
        return fnmatch.fnmatchcase(name, self.pattern) and any(fnmatch.fnmatchcase(cls, self.layer) for cls in classes)

    def values(self, shape: torch.Size) -> Tensor:
        """Return initial values, float32, of a shape."""
        arguments: dict[str, Any] = dict(self.arguments)
        if isinstance(arguments.get("gain"), str):
            arguments["gain"] = nn.init.calculate_gain(arguments["gain"])
        fill: Callable[..., Tensor] = getattr(nn.init, f"{self.method}_")
        return fill(torch.empty(shape), **arguments)


def initialize(network: nn.Module, rules: Sequence[Initializer]) -> None:
    """Initialise the parameters of a network by ``rules`` from the global random state; others do not change.

    Raises:
        MisconfigurationException: A rule applies to no parameter, or its method does not support the shape.
    """
    for rule, names in zip(rules, assign(network, rules, OPTION), strict=False):
        for name in names:
            parameter = network.get_parameter(name)
            try:
                values = rule.values(parameter.shape)
            except Exception as error:  # torch.nn.init raises various exceptions for wrong shapes and values
                raise MisconfigurationException(
                    f"Expected a method of {OPTION} that can fill {name} of shape {tuple(parameter.shape)}, but got "
                    f"{rule}: {' '.join(str(error).split())}"
                ) from error
            with torch.no_grad():
                parameter.copy_(values)  # computed separately, to be independent of dtype, device and memory format


def initializer_table(network: nn.Module, rules: Sequence[Initializer]) -> Table:
    """Return a table of the parameters of each rule, with mean and std of their current values."""
    label_columns = [Column(name, overflow="fold") for name in ("layer", "pattern", "method")]
    table = Table(*label_columns, "tensors", "parameters", "mean", "std", title="Initialisation")
    labels = [*((rule.layer, rule.pattern, str(rule)) for rule in rules), ("(all others)", "", "as built")]
    for label, names in zip(labels, assign(network, rules, OPTION), strict=True):
        if names:
            values = torch.cat([network.get_parameter(name).detach().flatten() for name in names])
            std, mean = torch.std_mean(values, correction=0)
            cells = f"{len(names)}", f"{values.numel():,}", f"{mean:.3g}", f"{std:.3g}"
            table.add_row(*map(escape, label), *cells)
    return table
