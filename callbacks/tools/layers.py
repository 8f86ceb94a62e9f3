"""Find layers of a network by name and type, and record their outputs."""

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from callbacks.tools.pictures import min_max


def network_of(module: nn.Module) -> nn.Module:
    """Return a LightningModule's ``network``, or the module itself; tags are the names within it."""
    return getattr(module, "network", module)


@contextmanager
def hooked(layers: dict[str, nn.Module], keep: Any) -> Iterator[None]:
    """Call ``keep(name, module, args, output)`` after the forward pass of layers; removes its hooks on exit."""
    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(partial(keep, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def forward(trainer: Trainer, pl_module: LightningModule, images: Tensor) -> Tensor:
    """Return the output of a module for normalised images, in the training precision."""
    with trainer.precision_plugin.val_step_context():
        return pl_module(images)


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the most probable class of each image, int64 ``(N,)``; of equally probable ones, the first.

    Like ``ImageClassifier``, it compares float32 probabilities, because different logits may have equal probabilities.
    """
    return logits.float().softmax(1).argmax(1)


def check_logits(pl_module: LightningModule, output: Tensor, owner: object) -> None:
    """Raise MisconfigurationException unless the output of a module consists of logits, ``(N, classes)``."""
    if output.ndim != 2 or output.shape[1] != len(names_of(pl_module, output.shape[1])):
        raise MisconfigurationException(
            f"Expected a module that returns logits (N, classes), one for each of its class names, for "
            f"{type(owner).__name__}, but got {tuple(output.shape)}. Switch it off with --callbacks.NAME false."
        )


def check_maps(output: Any, layer: str, owner: object) -> Tensor:
    """Return the output of a layer; raise MisconfigurationException unless it is ``(N, C, H, W)``."""
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise MisconfigurationException(
        f"Expected layer {layer!r} of {type(owner).__name__} to return maps (N, C, H, W), but got {got}. Set another "
        "layer."
    )


def matching_layers(pl_module: LightningModule, patterns: Sequence[str], owner: object) -> dict[str, nn.Module]:
    """Return the layers of the network whose names match any of the shell patterns, such as "stages.*.conv2".

    Raises:
        MisconfigurationException: A pattern matches no layer.
    """
    modules = {name: module for name, module in network_of(pl_module).named_modules() if name}
    layers: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {name: module for name, module in modules.items() if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            near = get_close_matches(pattern, modules, 5, cutoff=0.3) or list(modules)[:5]
            raise MisconfigurationException(
                f"Expected layers {pattern!r} of {type(owner).__name__} to match a layer of the network, but it "
                f"matches none of its {len(modules)}. Among them are {', '.join(near)}."
            )
        layers |= matching
    return layers


def convolutions(pl_module: LightningModule, count: int | None = None) -> dict[str, nn.Module]:
    """Return the 2-D convolutions of the network, or ``count`` of them, spread evenly from the first to the last."""
    modules = network_of(pl_module).named_modules()
    layers: dict[str, nn.Module] = {name: module for name, module in modules if isinstance(module, nn.Conv2d)}
    if count is None or len(layers) <= count:
        return layers
    names = list(layers)
    return {names[i]: layers[names[i]] for i in torch.linspace(0, len(names) - 1, count).round().int().tolist()}


def denormalized(pl_module: LightningModule, images: Tensor) -> Tensor:
    """Convert normalised images ``(N, 3, H, W)`` to float from 0 to 1 with the module's ``denormalize``, if any."""
    denormalize = getattr(pl_module, "denormalize", None)
    return denormalize(images) if callable(denormalize) else min_max(images)


def names_of(pl_module: LightningModule, count: int) -> list[str]:
    """Return the name of each class: the module's ``class_names``, or numbers if it has none."""
    return list(getattr(pl_module, "class_names", None) or map(str, range(count)))
