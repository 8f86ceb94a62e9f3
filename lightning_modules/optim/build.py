"""Build an optimizer of a network's param groups."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer, SparseAdam

from lightning_modules.optim.param_groups import ParamGroup, build_param_groups


def build_optimizer(
    make: OptimizerCallable,
    network: nn.Module,
    rules: Sequence[ParamGroup] = (),
    no_decay: bool = False,
    layer_decay: float | None = None,
) -> Optimizer:
    """Return an optimizer of the network's param groups, or say why it cannot train them.

    Args:
        make: Class of the optimizer, with its options.
        network: The network.
        rules: See ``build_param_groups``, also for the others.
        no_decay: Give norms and biases no weight decay.
        layer_decay: Factor on the learning rate from each layer to the one below.

    Raises:
        MisconfigurationException: The rules do not fit the network or the optimizer, it refuses its options or
            parameters, or ``SparseAdam`` would get dense gradients.
    """
    try:
        defaults = make([nn.Parameter(torch.zeros(1, 1))])
        groups = build_param_groups(network, rules, defaults, no_decay, layer_decay)
        optimizer = make(groups)
    except ValueError as error:
        hint = ""
        if "doesn't support per-parameter options" in str(error):  # LBFGS
            hint = " Take --model.param_groups, no_decay and layer_decay away, or all but one rule for `*`."
        if "only supports 2D parameters" in str(error):  # torch's Muon
            hint = " lightning_modules.optim.Muon takes the parameters of any network."
        raise MisconfigurationException(
            f"Expected --model.optimizer to take its options and this network, but it says: {error}.{hint}"
        ) from error
    if isinstance(optimizer, SparseAdam):
        embeddings = [one for one in network.modules() if isinstance(one, nn.Embedding | nn.EmbeddingBag)]
        sparse = {id(embedding.weight) for embedding in embeddings if embedding.sparse}
        if any(id(parameter) not in sparse for group in groups for parameter in group["params"]):
            raise MisconfigurationException(
                "Expected a network of sparse embeddings for SparseAdam, but this one has dense gradients. Set "
                "--model.optimizer to torch.optim.Adam, or freeze all other layers."
            )
    return optimizer


def unwrap(factory: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class or function behind a callable, and the arguments it has, given in Python or by jsonargparse."""
    if not isinstance(factory, partial):
        return factory, {}
    made = [one for one in (factory.func, *factory.args) if isinstance(one, type)]
    return (made[0] if made else factory.func), factory.keywords
