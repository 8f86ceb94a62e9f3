"""Build networks from the class or function in a config."""

import inspect
from collections.abc import Callable

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks.library import ZooNetwork
from lightning_modules.optim.build import unwrap

LIBRARIES = ("torchvision.models", "timm")


def build_network(network: Callable[..., nn.Module], width: int, image_size: int) -> nn.Module:
    """Call a network's class with its width, and with the image size if it has such an argument.

    A network of torchvision or timm whose first argument is not the number of classes is built by ``ZooNetwork``.
    """
    factory, arguments = unwrap(network)
    parameters = inspect.signature(factory).parameters
    if factory.__module__.startswith(LIBRARIES) and next(iter(parameters), "") != "num_classes":
        return ZooNetwork(width, f"{factory.__module__}.{factory.__name__}", image_size, arguments=arguments)
    if arguments.get("image_size") is None and "image_size" in parameters:
        return network(width, image_size=image_size)
    return network(width)


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
        size = images.shape[-1]
        raise MisconfigurationException(
            f"{type(network).__name__} does not accept images of {size}x{size} pixels: {error}. Set --data.image_size, "
            "or use another network."
        ) from error
    for module in training:
        module.training = True
    if not isinstance(output, Tensor):
        raise MisconfigurationException(
            f"Expected a network whose output is a tensor, but {type(network).__name__} returns "
            f"{type(output).__name__}. Wrap it in a module that selects the tensor to train on."
        )
    return tuple(output.shape)
