"""Adapt networks of torchvision and timm, which are designed for 224x224 images, to small images."""

import copy
import inspect
import pkgutil
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

LARGE_ENOUGH = 112  # pixels: networks for ImageNet divide the side by 32, so 112 pixels end as 4x4


class ZooNetwork(nn.Module):
    """The network of a library's function or class, with its stem adapted to small images.

    It is the library's own module, not wrapped, so that published weights match by name. The stem is adapted as
    follows:

    Starting at the input, strides are removed until their product times the side of the image is at least 112 pixels
    (factor 4 for 32x32 pixels, 2 for 64x64, 1 for 224x224): a convolution keeps the central 3x3 of its kernel (1x1 of
    2x2), with stride 1, and a pooling layer becomes the identity. Parallel layers (same input size and stride) are
    adapted together. If the network cannot run without their stride, like the patches of a vision transformer, they and
    all later layers stay unchanged.

    Input: float ``(N, 3, H, W)`` of one size. Output: logits ``(N, num_classes)``.

    Args:
        num_classes: Number of logits.
        function: Import path, such as ``torchvision.models.vgg16_bn`` or, if timm is installed,
            ``timm.models.resnet18``.
        image_size: H and W in pixels, set by the module that builds the network; 32 by default. It is also passed to a
            function with an argument ``image_size`` or ``img_size``.
        adapt_stem: Whether to adapt the stem. Published weights do not match convolutions that are cropped to 3x3.
            VGG-16 can run without it on 32x32 pixels, with 0.43 instead of 3.9 billion multiplications per image.
        arguments: Further arguments of the function.

    Raises:
        MisconfigurationException: The function does not exist, does not return a network for these arguments, or the
            network does not accept the images.
    """

    def __new__(  # type: ignore[misc]  # jsonargparse needs a class, and a wrapper would change all names
        cls,
        num_classes: int,
        function: str,
        image_size: int | None = None,
        adapt_stem: bool = True,
        arguments: dict[str, Any] | None = None,
    ) -> nn.Module:
        size = image_size or 32
        network = build(function, {"num_classes": num_classes, **(arguments or {})}, size)
        layers, error = strided_layers(network, size)
        if adapt_stem:
            network, changed, error = adapt(network, size, layers, error)
        if error is not None:
            raise MisconfigurationException(
                f"Expected a network for images of {size}x{size} pixels, but {function} does not accept them: "
                f"{first_line(error)}. Set an image or patch size in its arguments, or --data.image_size."
            )
        if adapt_stem:
            names = ", ".join(changed) or "none"
            rank_zero_info(f"Strides of {function} removed for {size}x{size} pixels: {names}.")
        return network


def build(path: str, arguments: dict[str, Any], image_size: int) -> nn.Module:
    """Call the function at an import path to build a network, without the auxiliary heads of GoogLeNet and Inception.

    Raises:
        MisconfigurationException: There is no such function, or it does not return a network.
    """
    module, _, name = path.rpartition(".")
    try:
        function = pkgutil.resolve_name(f"{module}:{name}")
    except (ImportError, AttributeError, ValueError) as error:
        near = ", ".join(get_close_matches(name, dir(getattr(error, "obj", None)), 3)) or "none"
        hint = "Install it: pip install timm." if getattr(error, "name", "") == "timm" else f"Similar names: {near}."
        raise MisconfigurationException(
            "Expected the import path of a function, such as torchvision.models.resnet18, for the network, but "
            f"{path!r} fails: {first_line(error)}. {hint}"
        ) from error
    try:
        sizes = {"image_size", "img_size"} & inspect.signature(function).parameters.keys()
        arguments = dict.fromkeys(sizes, image_size) | arguments
        network = function(**arguments)
        if getattr(network, "aux_logits", False):
            network = function(**arguments, aux_logits=False)
        if not isinstance(network, nn.Module):
            raise TypeError(f"it returns {type(network).__name__}")
    except Exception as error:  # a library can raise any exception
        raise MisconfigurationException(
            f"Expected {path} to return a network for {arguments}, but got: {first_line(error)}. Change the network's "
            "function or arguments."
        ) from error
    return network


class StridedLayer(NamedTuple):
    """A strided convolution or pooling layer that was called in a forward pass."""

    name: str
    input_size: int
    stride: int


def adapt(
    network: nn.Module, image_size: int, layers: list[StridedLayer], error: Exception | None
) -> tuple[nn.Module, list[str], Exception | None]:
    """Return a network without its first strides, the names of their layers, and the error if it rejects the images.

    Args:
        network: Network to adapt; it is not changed.
        image_size: H and W of the images in pixels.
        layers: Its strided layers.
        error: The error if it rejects the images as it is.
    """
    changed: list[str] = []
    first_error, factor = error, 1
    while layers and (error is not None or image_size * factor < LARGE_ENOUGH):
        together = [layer.name for layer in layers if layer[1:] == layers[0][1:]]
        candidate = copy.deepcopy(network)
        for name in together:
            remove_stride(candidate.get_submodule(name))
        factor *= layers[0].stride
        layers, new_error = strided_layers(candidate, image_size)
        if error is None and new_error is not None:  # it cannot run without these strides
            break
        network, error = candidate, new_error
        changed += together
    return network, changed, error and first_error


def strided_layers(network: nn.Module, image_size: int) -> tuple[list[StridedLayer], Exception | None]:
    """Pass one image through a network; return the strided layers in order, and the error if it failed."""
    layers: list[StridedLayer] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            stride = max(layer.stride) if isinstance(layer.stride, tuple) else layer.stride

            def note(layer: nn.Module, args: tuple[Tensor], name: str = name, stride: int = stride) -> None:
                layers.append(StridedLayer(name, args[0].shape[-1], stride))

            if stride > 1:
                hooks.append(layer.register_forward_pre_hook(note))
    error: Exception | None = None
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(1, 3, image_size, image_size))
        if not isinstance(output, Tensor):
            raise TypeError(f"its output is not a tensor, but {type(output).__name__}")
    except Exception as raised:  # a library can raise any exception
        error = raised
    for hook in hooks:
        hook.remove()
    network.train()
    return layers, error


def remove_stride(layer: Any) -> None:
    """Change a strided convolution or pooling layer so that it keeps the resolution."""
    layer.stride = (1, 1)
    if not isinstance(layer, nn.Conv2d):
        layer.kernel_size, layer.padding = (1, 1), (0, 0)
        return
    height, width = (3 if side >= 3 else 1 for side in layer.kernel_size)
    top, left = (layer.kernel_size[0] - height) // 2, (layer.kernel_size[1] - width) // 2
    layer.weight = nn.Parameter(layer.weight[:, :, top : top + height, left : left + width].detach().clone())
    layer.kernel_size, layer.padding = (height, width), (height // 2, width // 2)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name if it has no message."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
