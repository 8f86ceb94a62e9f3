"""Build networks from the class or function in a config."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks.library import ZooNetwork
from lightning_modules.optim.build import unwrap

LIBRARIES = ("torchvision.models", "timm")


def build_network(
    network: Callable[..., nn.Module], width: int, image_size: int, in_channels: int = 3, pretrained: bool = False
) -> nn.Module:
    """Call a network's class with its width, and with ``in_channels`` and the image size if it has such arguments.

    A network of torchvision or timm whose first argument is not the number of classes is built by ``ZooNetwork``. Its
    stem is not adapted to small images if weights will be loaded into it (``pretrained``).

    Raises:
        MisconfigurationException: The images are not RGB, and the network has no argument ``in_channels``.
    """
    factory, arguments = unwrap(network)
    if factory is not ZooNetwork and (function := library_function(network)):
        network, arguments = partial(ZooNetwork, function=function, arguments=arguments), {}
    parameters = inspect.signature(unwrap(network)[0]).parameters
    options: dict[str, Any] = {}
    if "in_channels" in parameters:
        options["in_channels"] = in_channels
    elif in_channels != 3:
        raise MisconfigurationException(
            f"Expected a network for images of {in_channels} channels, but {factory.__name__} has no argument "
            "in_channels. Add it, use another network, or --data.channels 3."
        )
    if arguments.get("image_size") is None and "image_size" in parameters:
        options["image_size"] = image_size
    if pretrained and arguments.get("adapt_stem") is None and "adapt_stem" in parameters:
        options["adapt_stem"] = False
    return network(width, **options)


def library_function(network: Callable[..., nn.Module]) -> str | None:
    """Return the ``function`` with which ``ZooNetwork`` builds a network; None for a network of another kind."""
    factory, arguments = unwrap(network)
    if factory is ZooNetwork:
        return arguments.get("function")
    first = next(iter(inspect.signature(factory).parameters), "")
    if not factory.__module__.startswith(LIBRARIES) or first == "num_classes":
        return None
    name = factory.__name__
    return f"timm:{name}" if factory.__module__.startswith("timm.models") else f"{factory.__module__}.{name}"


def output_shape(network: nn.Module, images: Tensor) -> tuple[int, ...]:
    """Return the shape of a network's output for ``images``, without changing its modes and statistics.

    Raises:
        MisconfigurationException: It does not accept these images, or its output is not a tensor.
    """
    training = [module for module in network.modules() if module.training]
    try:
        with torch.no_grad():
            output = network.eval()(images)
    except Exception as error:  # a network can raise any exception
        channels, size = images.shape[1], images.shape[-1]
        of_channels = "" if channels == 3 else f" and {channels} channels"
        raise MisconfigurationException(
            f"{type(network).__name__} does not accept images of {size}x{size} pixels{of_channels}: {error}. Set "
            "--data.image_size, or use another network."
        ) from error
    for module in training:
        module.training = True
    if not isinstance(output, Tensor):
        raise MisconfigurationException(
            f"Expected a network whose output is a tensor, but {type(network).__name__} returns "
            f"{type(output).__name__}. Wrap it in a module that selects the tensor to train on."
        )
    return tuple(output.shape)
