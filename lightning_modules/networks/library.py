"""Build networks of torchvision and timm, and adapt them, which are designed for 224x224 images, to small images."""

import copy
import pkgutil
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

LARGE_ENOUGH = 112  # pixels: networks for ImageNet divide the side by 32, so 112 pixels end as 4x4
TIMM = "timm:"  # before the name of a network of timm


class ZooNetwork(nn.Module):
    """The network of a library's function or class, with its stem adapted to small images.

    It is the library's own module, not wrapped, so that published weights match by name. Starting at the input, strides
    are removed until their product times the side of the image is at least 112 pixels (factor 4 for 32x32 pixels, 2 for
    64x64, 1 for 224x224): a convolution keeps the central 3x3 of its kernel (1x1 of 2x2), with stride 1, and a pooling
    layer becomes the identity. Parallel layers (same input size and stride) are adapted together. If the network cannot
    run without their stride, like the patches of a vision transformer, they and all later layers stay unchanged.

    Input: float ``(N, C, H, W)`` of one size. Output: logits ``(N, num_classes)``.

    Args:
        function: Import path, such as ``torchvision.models.vgg16_bn`` or ``timm.models.resnet18``; or a name that
            ``timm.create_model`` accepts, after "timm:", such as ``timm:convnext_atto``.
        image_size: H and W in pixels, set by the module that builds the network; 32 by default. It is also passed to a
            function that accepts ``image_size``, ``img_size`` or ``input_size``.
        adapt_stem: Whether to adapt the stem; by default, unless the module loads pretrained weights, which do not
            match convolutions that are cropped to 3x3. VGG-16 can run without it on 32x32 pixels, with 0.43 instead of
            3.9 billion multiplications per image.
        arguments: Further arguments of the function.
        in_channels: Number of channels C, set by the module that builds the network; 3 by default. See
            ``set_in_channels``.

    Raises:
        MisconfigurationException: The function does not exist, or does not return a network for these arguments.
    """

    def __new__(  # type: ignore[misc]  # jsonargparse needs a class, and a wrapper would change all names
        cls,
        num_classes: int,
        function: str,
        image_size: int | None = None,
        adapt_stem: bool | None = None,
        arguments: dict[str, Any] | None = None,
        in_channels: int | None = None,
    ) -> nn.Module:
        size = image_size or 32
        network = build(function, {"num_classes": num_classes, **(arguments or {})}, size)
        if in_channels and in_channels != 3:
            network = set_in_channels(network, in_channels)
        if adapt_stem in (None, True):
            network, removed = adapt(network, size, in_channels or 3)
            rank_zero_info(f"Strides of {function} removed for {size}x{size} pixels: {', '.join(removed) or 'none'}.")
        return network


def build(path: str, arguments: dict[str, Any], image_size: int) -> nn.Module:
    """Build a network, without the auxiliary heads of GoogLeNet and Inception, which return several outputs.

    Raises:
        MisconfigurationException: There is no such function, or it does not return a network.
    """
    try:
        network = create(path, arguments, image_size)
        if getattr(network, "aux_logits", False):
            network = create(path, arguments | {"aux_logits": False}, image_size)
        if not isinstance(network, nn.Module):
            raise TypeError(f"it returns {type(network).__name__}")
    except Exception as error:  # a library can raise any exception
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise MisconfigurationException(
            "Expected timm:NAME or the import path of a function that returns a network, such as "
            f"torchvision.models.resnet18, but {path} with {arguments} fails: {reason}. Names like it: "
            f"{_similar(path, error)}."
        ) from error
    return network


def create(path: str, arguments: dict[str, Any], image_size: int) -> Any:
    """Call a function with ``arguments``, and with the image size under the name of an argument that it accepts."""
    function: Callable[..., Any]
    if path.startswith(TIMM):
        import timm  # it takes a second

        function, arguments = timm.create_model, {"model_name": path.removeprefix(TIMM)} | arguments
    else:
        module, _, name = path.rpartition(".")
        function = pkgutil.resolve_name(f"{module}:{name}")
    # of vision transformers, the last one of MaxViT; most functions take any keyword, and pass it on
    sizes = {"image_size": image_size, "img_size": image_size, "input_size": (image_size, image_size)}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # about GoogLeNet's init_weights
        for name, size in sizes.items():
            try:
                return function(**{name: size, **arguments})
            except TypeError as error:
                if name not in str(error):
                    raise
        return function(**arguments)


def _similar(path: str, error: Exception) -> str:
    """Return names of networks that are similar to one that does not exist."""
    names: list[str] = []
    if isinstance(error, AttributeError):
        names = dir(error.obj)
    elif path.startswith(TIMM):
        import timm

        names = timm.list_models()
    return ", ".join(get_close_matches(path.removeprefix(TIMM).rpartition(".")[2], names, 3)) or "none"


def set_in_channels(network: nn.Module, channels: int) -> nn.Module:
    """Adapt the first convolution of a network to images of some channels, as timm does, and return the network."""
    from timm.models import adapt_input_conv  # it takes a second

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3:
            layer.weight = nn.Parameter(adapt_input_conv(channels, layer.weight.detach()))
            layer.in_channels = channels
            return network
    raise MisconfigurationException(
        f"Expected a network that begins with a convolution of 3 channels, which can be adapted to {channels}, but "
        f"{type(network).__name__} has none. Use another network, or --data.channels 3."
    )


def adapt(network: nn.Module, size: int, channels: int = 3) -> tuple[nn.Module, list[str]]:
    """Return a network without its first strides, and the names of their layers.

    A network that rejects images of ``size`` pixels with any stem is returned unchanged.
    """
    adapted, removed, factor = network, list[str](), 1
    layers, runs = strided_layers(network, size, channels)
    while layers and (not runs or size * factor < LARGE_ENOUGH):
        together = [name for name, *facts in layers if facts == list(layers[0][1:])]
        candidate = copy.deepcopy(adapted)
        for name in together:
            remove_stride(candidate.get_submodule(name))
        factor *= layers[0][2]
        layers, candidate_runs = strided_layers(candidate, size, channels)
        if runs and not candidate_runs:  # it cannot run without these strides
            break
        adapted, runs = candidate, candidate_runs
        removed += together
    return (adapted, removed) if runs else (network, [])


def strided_layers(network: nn.Module, size: int, channels: int = 3) -> tuple[list[tuple[str, int, int]], bool]:
    """Return name, input size and stride of each strided layer that an image reaches, in order, and whether it runs."""
    layers: list[tuple[str, int, int]] = []
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            stride = max(layer.stride) if isinstance(layer.stride, tuple) else layer.stride

            def note(layer: nn.Module, args: tuple[Tensor], name: str = name, stride: int = stride) -> None:
                layers.append((name, args[0].shape[-1], stride))

            if stride > 1:
                hooks.append(layer.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size))
        runs = True
    except Exception:  # a library can raise any exception
        runs = False
    for hook in hooks:
        hook.remove()
    network.train()
    return layers, runs


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
