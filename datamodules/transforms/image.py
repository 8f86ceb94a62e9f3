"""Transforms of single images: their type in configs, composition and check."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import register_type
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.errors import DataError
from datamodules.reading.decode import MODES

# Callable would accept the same, but with nn.Module first, jsonargparse's errors name the class path
ImageTransform = nn.Module | Callable[[Any], Any]
Transform = Callable[[Tensor], Tensor]  # uint8 (C, H, W) to an image tensor, or a stack of views

# v2.RandomRotation and v2.RandomAffine have `degrees: Number`, which jsonargparse parses but saves as
# "Unable to serialize instance 10": the config.yaml of a run could not be read again
register_type(Number, lambda value: value, float, type_check=isinstance)

TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def compose(transforms: Sequence[ImageTransform], channels: int = 3) -> Transform:
    """Compose transforms into one that applies them in order and returns an image tensor.

    It can be pickled if they can. It takes uint8 ``(C, H, W)`` and returns uint8 or float32 ``(C, H, W)``: a PIL image
    or a NumPy array ``(H, W, C)`` becomes a tensor, and grey becomes C equal channels. Several images, such as those of
    FiveCrop, become a stack of views ``(V, C, H, W)``; later transforms are applied to each view separately.

    Transforms are torchvision's (``ToTensor`` of version 1 accepts a tensor here) or any function of an image. The
    composition raises DataError if one of them fails, or if the last one does not return an image.
    """
    return partial(_apply, [TO_TENSOR if type(each) is v1.ToTensor else each for each in transforms], channels)


def split_first(transform: Transform | None) -> tuple[Any, Transform | None]:
    """Return the first of composed transforms, or None, and the composition of the others."""
    if isinstance(transform, partial) and transform.func is _apply:
        (first, *others), channels = transform.args
        return first, compose(others, channels)
    return None, transform


def _apply(transforms: Sequence[ImageTransform], channels: int, image: Any) -> Tensor:
    for number, transform in enumerate(transforms, 1):
        try:
            result = transform(image)
        except Exception as error:  # a custom transform can raise any exception
            name, reason = getattr(transform, "__name__", type(transform).__name__), " ".join(str(error).split())
            raise DataError(f"{name} failed on {_describe(image)}: {reason or type(error).__name__}") from error
        if isinstance(result, tuple | list):
            views = [_apply(transforms[number:], channels, view) for view in result]
            return torch.stack(views).flatten(0, -4)  # views of views become one dimension
        image = result
    is_tensor = type(image) is Tensor and image.dtype in (torch.uint8, torch.float32)
    if is_tensor and image.dim() == 3 and len(image) == channels:
        return image  # the usual case; saves 10 us
    return _as_tensor(image, channels)


def _as_tensor(image: Any, channels: int) -> Tensor:
    """Return an image of any kind as a tensor of some channels."""
    if isinstance(image, Image.Image) and image.mode[0] not in "IF":  # others would be clipped
        image = image.convert(MODES.get(channels))
    if isinstance(image, Image.Image | np.ndarray):
        image = v2.functional.to_image(np.array(image))
    is_image = isinstance(image, Tensor) and image.dim() in (3, 4) and image.shape[-3] in (1, channels)
    if not is_image or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise DataError(
            f"Expected transforms that return a uint8 or float tensor ({channels}, H, W), an array (H, W, {channels}), "
            f"a PIL image, or a list of them, but got {_describe(image)}."
        )
    pixels = image.as_subclass(Tensor)  # torchvision's Image would keep its type through the network
    if pixels.is_floating_point():
        pixels = pixels.float()
    return pixels.expand(*pixels.shape[:-3], channels, *pixels.shape[-2:])


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (on the CPU), and restore their random states on exit."""
    with isolate_rng(include_cuda=False):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield


def output_size(transform: Transform | None, size: int, normalize: bool, views: bool = True, channels: int = 3) -> int:
    """Return the side in pixels of images of ``size`` pixels after per-image transforms, tried on a white one.

    Raises:
        DataError: They fail, or return several views without ``views``, or floats of 0 to 255, which ``normalize``
            would scale like floats of 0 to 1.
    """
    white = torch.full((channels, size, size), 255, dtype=torch.uint8)
    if transform is not None:
        with seeded(0):
            white = transform(white)
    if white.ndim != 3 and not views:
        raise DataError(
            f"Expected --data.train_transforms that return one view per image, but got {tuple(white.shape)}. Use "
            "transforms with several views, such as FiveCrop, only in --data.eval_transforms."
        )
    if normalize and white.is_floating_point() and white.max() > 10:  # more than a normalised 1
        raise DataError(
            f"Expected floats of 0 to 1 from per-image transforms, but white becomes {white.max():.3g}. Set `scale: "
            "true` of ToDtype, or use --data.normalize false."
        )
    return white.shape[-1]
