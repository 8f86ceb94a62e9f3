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

Layers = dict[str, Any]  # modules by name


def network_of(module: nn.Module) -> nn.Module:
    """Return a LightningModule's ``network``, or the module itself; tags are the names within it."""
    return getattr(module, "network", module)


def find_layers(
    module: nn.Module, patterns: Sequence[str] | None = None, types: Any = nn.Conv2d, most: int | None = None
) -> Layers:
    """Return layers of the module's network by name, from the first to the last.

    Args:
        module: Module whose network is searched.
        patterns: Shell patterns of names, such as "stages.*.conv2".
        types: Types of the layers if there are no patterns.
        most: Maximum number of layers of these types, spread evenly.

    Raises:
        MisconfigurationException: A pattern matches no layer.
    """
    layers = {name: layer for name, layer in network_of(module).named_modules() if name}
    if patterns is None:
        names = [name for name, layer in layers.items() if isinstance(layer, types)]
        return {name: layers[name] for name in evenly(names, most or len(names))}
    for pattern in patterns:
        if not fnmatch.filter(layers, pattern):
            near = get_close_matches(pattern, layers, 5, cutoff=0.3) or list(layers)[:5]
            raise MisconfigurationException(
                f"Expected {pattern!r} to match a layer of the network, but it matches none of its {len(layers)}. "
                f"Among them are {', '.join(near)}."
            )
    matches = {name for pattern in patterns for name in fnmatch.filter(layers, pattern)}
    return {name: layer for name, layer in layers.items() if name in matches}


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Return ``most`` of the items, spread evenly from the first to the last, or all if there are fewer."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in torch.linspace(0, len(items) - 1, most).round().int().tolist()]


def first_of(names: Sequence[str]) -> str:
    """Return the first three names as text, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def hooked(layers: Layers, keep: Any) -> Iterator[None]:
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


def check_maps(output: Any, layer: str) -> Tensor:
    """Return the output of a layer; raise MisconfigurationException unless it is ``(N, C, H, W)``."""
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) == 4:
        return output
    raise MisconfigurationException(f"Expected a layer that returns maps (N, C, H, W), but {layer!r} returns {shape}.")


def denormalized(pl_module: LightningModule, images: Tensor) -> Tensor:
    """Convert normalised images ``(N, C, H, W)`` to RGB from 0 to 1 with the module's ``denormalize``, if any."""
    denormalize = getattr(pl_module, "denormalize", None)
    return as_rgb(denormalize(images) if callable(denormalize) else min_max(images))


def min_max(maps: Tensor) -> Tensor:
    """Map each channel of each image, ``(N, C, H, W)``, separately to 0 to 1."""
    maps = maps.nan_to_num(0, 0, 0)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def as_rgb(images: Tensor) -> Tensor:
    """Return the first three channels of images ``(N, C, H, W)``, or the first as grey if there are fewer."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def names_of(pl_module: LightningModule, count: int) -> list[str]:
    """Return the name of each class: the module's ``class_names``, or numbers if it has none."""
    return list(getattr(pl_module, "class_names", None) or map(str, range(count)))
