"""Networks made of the class or function that a config names."""

import inspect
import sys
from collections.abc import Callable

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.optim.build import unwrap

LIBRARIES = ("torchvision.models", "timm.models", "timm")


def build_network(network: Callable[..., nn.Module], width: int, image_size: int) -> nn.Module:
    """Call a network's class with its width, and with the image size if it asks for one.

    Raises:
        MisconfigurationException: It is of a library, and its first argument is another.
    """
    made, given = unwrap(network)
    if made.__module__.startswith(LIBRARIES) and next(iter(inspect.signature(made).parameters), "") != "num_classes":
        known = (root for root in LIBRARIES if getattr(sys.modules.get(root), made.__name__, None) is made)
        path = f"{next(known, made.__module__)}.{made.__name__}"
        raise MisconfigurationException(
            f"Expected a network whose first argument is the number of classes, but got {path}. Give --model.network "
            f"lightning_modules.networks.ZooNetwork --model.network.function {path}"
        )
    if given.get("image_size") is None and "image_size" in inspect.signature(made).parameters:
        return network(width, image_size=image_size)
    return network(width)


def output_shape(network: nn.Module, images: Tensor) -> tuple[int, ...]:
    """Return the shape that a network makes of ``images``, and leave its modes and statistics as they are.

    Raises:
        MisconfigurationException: It cannot take these images, or makes something else than a tensor.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            output = network(images)
    except Exception as error:  # a network may raise anything
        size = images.shape[-1]
        raise MisconfigurationException(
            f"{type(network).__name__} cannot take images of {size}x{size} pixels: {error}. Give a "
            "--data.image_size that it is made for, or another network."
        ) from error
    for module in training:
        module.training = True
    if not isinstance(output, Tensor):
        raise MisconfigurationException(
            f"Expected a network whose output is a tensor, but {type(network).__name__} makes "
            f"{type(output).__name__}. Wrap it in one that picks the part to train on."
        )
    return tuple(output.shape)
