"""Normalise batches after their transforms, and find a Normalize among the transforms of single images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.errors import DataError
from datamodules.transforms.batch import Batch, BatchContext, BatchTransform

Normalization = tuple[list[float], list[float]]  # mean and standard deviation of each channel on the scale of 0 to 1
NOT_NORMALIZED: Normalization = [0.0], [1.0]  # of any channels


class Normalize:
    """Subtract the mean and divide by the standard deviation of each channel, both on the scale of 0 to 1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = mean
        self.std = std
        self._scale_and_shift: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, white: int) -> Tensor:
        """Normalise uint8 or float images on a scale of 0 to ``white``; returns float32."""
        key = images.device, white
        if key not in self._scale_and_shift:
            mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std))
            self._scale_and_shift[key] = 1 / std / white, -mean / std
        scale, shift = self._scale_and_shift[key]
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift)


class BatchPipeline:
    """Apply transforms to a batch, and then normalise it.

    It takes images uint8, or float from 0 to 1, and returns them as float32 of mean 0.
    """

    def __init__(self, transforms: Sequence[BatchTransform], normalize: Normalize) -> None:
        self.transforms = transforms
        self.normalize = normalize

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        for transform in self.transforms:
            images, targets = transform(images, targets, draw)
        return self.normalize(images, draw.white), targets


def find_normalization(
    train: Sequence[Any], evaluation: Sequence[Any], normalize: bool, channels: int = 3
) -> Normalization:
    """Return mean and standard deviation of torchvision's Normalize in per-image transforms, 0 and 1 without one.

    ``normalize`` is whether batches are normalised after them.

    Raises:
        DataError: Images would be normalised twice, or differently in training and evaluation.
    """
    first, second = normalizers(train), normalizers(evaluation)
    for name, found in ("train", first), ("eval", second):
        if len(found) + normalize > 1:
            raise DataError(
                f"Images would be normalised twice: --data.{name}_transforms contain a Normalize. Remove it, or use "
                "--data.normalize false."
            )
    of_train, of_eval = (_of_channels(found, channels) for found in (first, second))
    if not np.allclose(of_train, of_eval, atol=1e-3):
        raise DataError(
            "Expected the same Normalize in --data.train_transforms and eval_transforms, but got mean and std of "
            f"{of_train} and {of_eval}."
        )
    return of_eval


def _of_channels(found: Sequence[Normalization], channels: int) -> Normalization:
    mean, std = found[0] if found else NOT_NORMALIZED
    return np.resize(mean, channels).tolist(), np.resize(std, channels).tolist()


def normalizers(transforms: Sequence[Any]) -> list[Normalization]:
    """Return mean and standard deviation of each Normalize in transforms and their containers."""
    found: list[Normalization] = []
    for transform in transforms:
        if isinstance(transform, v1.Normalize | v2.Normalize):
            mean, std = (np.ravel(values) for values in (transform.mean, transform.std))
            white = 255 if std.max() > 2 else 1  # no standard deviation of images of 0 to 1 exceeds 0.5
            found.append(((mean / white).round(6).tolist(), (std / white).round(6).tolist()))
        elif isinstance(transform, nn.Sequential):
            found += normalizers(list(transform))
        elif type(transform).__module__.startswith("torchvision."):
            found += normalizers(getattr(transform, "transforms", ()))
    return found
