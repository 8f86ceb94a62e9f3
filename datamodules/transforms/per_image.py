"""Draw a value for each image of a batch, and apply a function with separate arguments to each of some images."""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.errors import DataError
from datamodules.transforms.batch import BatchContext

Range = tuple[float, float]
VALUES_IN_CACHE = 2**18  # values of images that a CPU computes at a time
DEVICES_THAT_COUNT = ("cpu",)  # devices that know the number of chosen images without waiting


def uniform(span: Range, images: Tensor, draw: BatchContext, *shape: int) -> Tensor:
    """Draw numbers uniformly from a range, float32 ``(N, *shape)``."""
    low, high = span
    return torch.rand(len(images), *shape, generator=draw.generator, device=images.device) * (high - low) + low


def update(images: Tensor, chosen: Tensor | None, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Replace the chosen images by a function of them; images may be overwritten.

    A CPU computes the chosen images only, in parts that fit in its cache. Other devices compute all of them, because
    they would have to wait for the number of chosen images.

    Args:
        images: Of any shape and dtype ``(N, ...)``.
        chosen: Which images are replaced, bool ``(N,)``; None for all.
        function: Called with images ``(n, ...)`` and their arguments ``(n, ...)``; results of the same shape.
        arguments: Separate for each image, ``(N, ...)``.
    """
    if images.device.type not in DEVICES_THAT_COUNT:
        results = function(images, *arguments).to(images.dtype)
        return results if chosen is None else torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), results, images)
    size = max(1, VALUES_IN_CACHE // max(1, images[0].numel()))
    places = None if chosen is None else chosen.nonzero()[:, 0]
    if places is None or len(places) == len(images):
        if len(images) <= size:
            return function(images, *arguments).to(images.dtype)
        for some, *theirs in zip(*(each.split(size) for each in (images, *arguments)), strict=True):
            some.copy_(function(some, *theirs))
    elif len(places):
        for part in places.split(size):
            results = function(*(each.index_select(0, part) for each in (images, *arguments)))
            images.index_copy_(0, part, results.to(images.dtype))
    return images


def check_range(name: str, span: tuple[float, ...], low: float, high: float = float("inf")) -> Range:
    """Return a range; raise DataError unless it holds two increasing numbers within ``low`` and ``high``."""
    if len(span) != 2 or not low <= span[0] <= span[1] <= high:
        raise DataError(f"Expected {name} as two increasing numbers from {low:g} to {high:g}, but got {list(span)}.")
    return span[0], span[1]


def channel_values(values: float | list[float], images: Tensor) -> Tensor:
    """Return one value, or those of the channels, as float32 ``(1, 1 or C, 1, 1)``, without a copy from the host."""
    each = values if isinstance(values, list | tuple) else [values]
    if len(each) not in (1, images.shape[1]):
        raise DataError(f"Expected one fill value, or one for each of {images.shape[1]} channels, got {list(each)}.")
    return torch.cat([torch.full((1, 1, 1, 1), float(value), device=images.device) for value in each], 1)


def round_to(dtype: torch.dtype, pixels: Tensor) -> Tensor:
    """Return pixels of a dtype, rounded if it is uint8."""
    return pixels.round().to(dtype) if dtype == torch.uint8 else pixels.to(dtype)
