"""Build an optimizer for a network's param groups."""

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
    """Build an optimizer for the network's param groups.

    Args:
        make: Class of the optimizer, with its options.
        network: Network to train.
        rules: See ``build_param_groups``.
        no_decay: Disable weight decay for norms and biases.
        layer_decay: Factor on the learning rate from each layer to the one below.

    Raises:
        MisconfigurationException: The rules do not match the network or the optimizer, the optimizer rejects its
            options or parameters, or ``SparseAdam`` would get dense gradients.
    """
    try:
        defaults = make([nn.Parameter(torch.zeros(1, 1))])
        groups = build_param_groups(network, rules, defaults, no_decay, layer_decay)
        optimizer = make(groups)
    except ValueError as error:
        hint = ""
        if "doesn't support per-parameter options" in str(error):  # LBFGS
            hint = " Remove --model.param_groups, no_decay and layer_decay, or all rules except one for `*`."
        if "only supports 2D parameters" in str(error):  # torch's Muon
            hint = " lightning_modules.optim.Muon takes the parameters of any network."
        raise MisconfigurationException(
            f"Expected --model.optimizer to accept its options and this network, but got: {error}.{hint}"
        ) from error
    if isinstance(optimizer, SparseAdam):
        embeddings = [layer for layer in network.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)]
        sparse = {id(embedding.weight) for embedding in embeddings if embedding.sparse}
        if any(id(parameter) not in sparse for group in groups for parameter in group["params"]):
            raise MisconfigurationException(
                "Expected a network of sparse embeddings for SparseAdam, but this one has dense gradients. Set "
                "--model.optimizer to torch.optim.Adam, or freeze all other layers."
            )
    return optimizer


def unwrap(factory: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class or function that a callable wraps, in Python or by jsonargparse, and its arguments."""
    if not isinstance(factory, partial):
        return factory, {}
    classes = [each for each in (factory.func, *factory.args) if isinstance(each, type)]
    return (classes[0] if classes else factory.func), factory.keywords
