"""Adapt networks of torchvision and timm, which are designed for 224x224 images, to small images."""

import copy
import importlib
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks.image_size import require_image_size

LARGE_ENOUGH = 112  # pixels: networks for ImageNet divide the side by 32, so 112 pixels end as 4x4
STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


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
        image_size: H and W in pixels; by default the data's, set by the module that builds the network. It is also
            passed to a function with an argument ``image_size`` or ``img_size``.
        adapt_stem: Whether to adapt the stem. Published weights do not match convolutions that are cropped to 3x3.
            VGG-16 can run without it on 32x32 pixels, with 0.43 instead of 3.9 billion multiplications per image.
        arguments: Further arguments of the function.

    Raises:
        MisconfigurationException: The function does not exist, does not return a network for these arguments, the
            network does not accept the images, or the image size is missing.
    """

    def __new__(  # type: ignore[misc]  # jsonargparse needs a class, and a wrapper would change all names
        cls,
        num_classes: int,
        function: str,
        image_size: int | None = None,
        adapt_stem: bool = True,
        arguments: dict[str, Any] | None = None,
    ) -> nn.Module:
        size = require_image_size(image_size, function)
        network = build(function, num_classes, size, arguments or {})
        error = adapt(network, size, function) if adapt_stem else find_strided_layers(network, size)[1]
        if error is not None:
            raise MisconfigurationException(
                f"Expected a network for images of {size}x{size} pixels, but {function} does not accept them: "
                f"{first_line(error)}. Set an image or patch size in its arguments, or --data.image_size."
            )
        return network


def build(path: str, num_classes: int, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    """Call the function at a path to build a network, without the auxiliary heads of GoogLeNet and Inception.

    Raises:
        MisconfigurationException: It does not return a network.
    """
    function = find(path)
    try:
        sizes = {"image_size", "img_size"} & inspect.signature(function).parameters.keys()
        arguments = {"num_classes": num_classes, **dict.fromkeys(sizes, image_size), **arguments}
        network = function(**arguments)
        if getattr(network, "aux_logits", False):
            network = function(**arguments, aux_logits=False)
    except Exception as error:  # a library can raise any exception
        raise MisconfigurationException(
            f"Expected {path} to return a network for {arguments}, but got: {first_line(error)}. Change the network's "
            "function or arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise MisconfigurationException(
            f"Expected {path} to return a network, but got {type(network).__name__}. Change the network's function."
        )
    return network


def find(path: str) -> Callable[..., Any]:
    """Return the function or class at an import path.

    Raises:
        MisconfigurationException: The path is not a function or class.
    """
    module_name, _, name = path.rpartition(".")
    expected = "Expected the import path of a function, such as torchvision.models.resnet18, for the network, but"
    try:
        module = importlib.import_module(module_name or name)
    except ImportError as error:
        hint = " Install it: pip install timm." if error.name == "timm" else ""
        raise MisconfigurationException(f"{expected} {path!r} fails: {first_line(error)}.{hint}") from error
    function = getattr(module, name, None)
    if not callable(function):
        near = ", ".join(get_close_matches(name, dir(module), 3)) or "none"
        raise MisconfigurationException(f"{expected} {path!r} is not one. Similar names: {near}.")
    return function


def adapt(network: nn.Module, image_size: int, path: str) -> Exception | None:
    """Remove the first strides of a network and report them; return the error if it still rejects the images."""
    changed: list[str] = []
    required: list[str] = []
    factor = 1
    layers, error = find_strided_layers(network, image_size)
    first_error = error
    while layers and not required and (error is not None or image_size * factor < LARGE_ENOUGH):
        first = layers[0]
        together = [each for each in layers if (each.input_size, each.stride) == (first.input_size, first.stride)]
        names = [each.name for each in together]
        before = [copy.deepcopy(vars(each.layer)) for each in together]
        for each in together:
            undo(each.layer)
        succeeded, (layers, error) = error is None, find_strided_layers(network, image_size)
        if succeeded and error is not None:
            for each, attributes in zip(together, before, strict=True):
                vars(each.layer).update(attributes)
            required, error = names, None
        else:
            changed += names
            factor *= together[0].stride
    if error is not None:
        return first_error
    but = f"; it cannot run without those of {', '.join(required)}" if required else ""
    rank_zero_info(
        f"Strides of {path} removed for {image_size}x{image_size} pixels: {', '.join(changed) or 'none'}{but}."
    )
    return None


class StridedLayer(NamedTuple):
    """A strided layer that was called in a forward pass."""

    name: str
    layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    input_size: int
    stride: int


def find_strided_layers(network: nn.Module, image_size: int) -> tuple[list[StridedLayer], Exception | None]:
    """Pass one image through a network; return the strided layers in order, and the error if it failed."""
    layers: list[StridedLayer] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, STRIDED) and (stride := stride_of(layer)) > 1:

            def note(layer: Any, args: tuple[Tensor], name: str = name, stride: int = stride) -> None:
                layers.append(StridedLayer(name, layer, args[0].shape[-1], stride))

            hooks.append(layer.register_forward_pre_hook(note))
    error: Exception | None = None
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(1, 3, image_size, image_size))
        if not isinstance(output, Tensor):
            error = TypeError(f"its output is not a tensor, but {type(output).__name__}")
    except Exception as raised:  # a library can raise any exception
        error = raised
    for hook in hooks:
        hook.remove()
    network.train()
    return layers, error


def undo(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> None:
    """Change a strided layer so that it keeps the resolution."""
    layer.stride = (1, 1)
    if isinstance(layer, nn.Conv2d):
        height, width = (3 if side >= 3 else 1 for side in layer.kernel_size)
        top, left = (layer.kernel_size[0] - height) // 2, (layer.kernel_size[1] - width) // 2
        kernel = layer.weight[:, :, top : top + height, left : left + width]
        layer.weight = nn.Parameter(kernel.detach().clone())
        layer.kernel_size, layer.padding = (height, width), (height // 2, width // 2)
    else:
        layer.kernel_size, layer.padding = (1, 1), (0, 0)


def stride_of(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> int:
    """Return the larger stride of a layer."""
    return layer.stride if isinstance(layer.stride, int) else max(layer.stride)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name if it has no message."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
