"""Networks of torchvision and timm, made for ImageNet's 224x224 images, on small ones."""

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

LARGE_ENOUGH = 112  # pixels: networks for ImageNet divide a side by 32, which leaves 4x4 of 112 at the end
STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class ZooNetwork(nn.Module):
    """The network that a function or class of a library makes, its stem adapted to small images.

    It is the library's own, not wrapped, so that weights published for it have its names. The rule of adapting:

    From the entrance on, strides are undone until they and the side of the image multiply to 112 pixels or more (4 for
    32x32 pixels, 2 for 64x64, 1 for 224x224): a convolution keeps the central 3x3 of its kernel (1x1 of 2x2), with
    stride 1, and a pooling layer passes its input on. Layers side by side (same input size and stride) are undone
    together, and kept as they are, with all behind them, if the network cannot run otherwise, as the patches of a
    vision transformer.

    Input: float ``(N, 3, H, W)`` of one size. Output: logits ``(N, num_classes)``.

    Args:
        num_classes: Number of logits.
        function: Import path, as ``torchvision.models.vgg16_bn`` or, once timm is installed, ``timm.models.resnet18``.
        image_size: H and W in pixels; by default the data's, given by the module that builds the network. A function
            with an argument ``image_size`` or ``img_size`` gets it as well.
        adapt_stem: Whether to apply the rule. Published weights do not fit convolutions that it cuts to 3x3. VGG-16
            does without it on 32x32 pixels, at 0.43 instead of 3.9 billion multiplications an image.
        arguments: Further arguments of the function.

    Raises:
        MisconfigurationException: There is no such function, or it makes no network with these arguments, or the
            network cannot take the images, or nobody gave their size.
    """

    def __new__(  # type: ignore[misc]  # jsonargparse wants a class, and a wrapper would change all names
        cls,
        num_classes: int,
        function: str,
        image_size: int | None = None,
        adapt_stem: bool = True,
        arguments: dict[str, Any] | None = None,
    ) -> nn.Module:
        size = require_image_size(image_size, function)
        network = build(function, num_classes, size, arguments or {})
        error = adapt(network, size, function) if adapt_stem else watch(network, size)[1]
        if error is not None:
            raise MisconfigurationException(
                f"Expected a network for images of {size}x{size} pixels, but {function} cannot take them: "
                f"{first_line(error)}. Give its arguments a size of image or patch, or --data.image_size."
            )
        return network


def build(path: str, num_classes: int, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    """Call the function at a path for a network without the auxiliary heads of GoogLeNet and Inception.

    Raises:
        MisconfigurationException: It makes no network.
    """
    function = find(path)
    try:
        sizes = {"image_size", "img_size"} & inspect.signature(function).parameters.keys()
        arguments = {"num_classes": num_classes, **dict.fromkeys(sizes, image_size), **arguments}
        network = function(**arguments)
        if getattr(network, "aux_logits", False):
            network = function(**arguments, aux_logits=False)
    except Exception as error:  # a library may raise anything
        raise MisconfigurationException(
            f"Expected {path} to make a network with {arguments}, but got: {first_line(error)}. Change the network's "
            "function or arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise MisconfigurationException(
            f"Expected {path} to make a network, but got {type(network).__name__}. Change the network's function."
        )
    return network


def find(path: str) -> Callable[..., Any]:
    """Return the function or class with an import path.

    Raises:
        MisconfigurationException: There is none.
    """
    module_name, _, name = path.rpartition(".")
    expected = "Expected the import path of a function, such as torchvision.models.resnet18, for the network, but"
    try:
        module = importlib.import_module(module_name or name)
    except ImportError as error:
        hint = " Install it: pip install timm." if error.name == "timm" else ""
        raise MisconfigurationException(f"{expected} {path!r} fails: {first_line(error)}.{hint}") from error
    found = getattr(module, name, None)
    if not callable(found):
        near = ", ".join(get_close_matches(name, dir(module), 3)) or "none"
        raise MisconfigurationException(f"{expected} {path!r} is none. Similar names there: {near}.")
    return found


def adapt(network: nn.Module, image_size: int, path: str) -> Exception | None:
    """Undo the first strides of a network and say which; return why it cannot take the images even so, if it cannot."""
    undone: list[str] = []
    kept: list[str] = []
    factor = 1
    layers, error = watch(network, image_size)
    first_error = error
    while layers and not kept and (error is not None or image_size * factor < LARGE_ENOUGH):
        together = [one for one in layers if (one.input_size, one.stride) == (layers[0].input_size, layers[0].stride)]
        names = [one.name for one in together]
        before = [copy.deepcopy(vars(one.layer)) for one in together]
        for one in together:
            undo(one.layer)
        ran, (layers, error) = error is None, watch(network, image_size)
        if ran and error is not None:
            for one, attributes in zip(together, before, strict=True):
                vars(one.layer).update(attributes)
            kept, error = names, None
        else:
            undone += names
            factor *= together[0].stride
    if error is not None:
        return first_error
    but = f"; it cannot run without that of {', '.join(kept)}" if kept else ""
    rank_zero_info(
        f"Strides of {path} undone for {image_size}x{image_size} pixels: {', '.join(undone) or 'none'}{but}."
    )
    return None


class Met(NamedTuple):
    """A strided layer that an image met."""

    name: str
    layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
    input_size: int
    stride: int


def watch(network: nn.Module, image_size: int) -> tuple[list[Met], Exception | None]:
    """Pass one image through a network, and return the strided layers in its order, and why it did not come through."""
    met: list[Met] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, STRIDED) and (stride := stride_of(layer)) > 1:

            def note(layer: Any, args: tuple[Tensor], name: str = name, stride: int = stride) -> None:
                met.append(Met(name, layer, args[0].shape[-1], stride))

            hooks.append(layer.register_forward_pre_hook(note))
    error: Exception | None = None
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(1, 3, image_size, image_size))
        if not isinstance(output, Tensor):
            error = TypeError(f"its output is no tensor, but {type(output).__name__}")
    except Exception as raised:  # a library may raise anything
        error = raised
    for hook in hooks:
        hook.remove()
    network.train()
    return met, error


def undo(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> None:
    """Make a strided layer keep the resolution."""
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
    """Return an error's first line, or its name if it has none."""
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
