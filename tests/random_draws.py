"""Batches of crops of photos, and comparisons of drawn numbers."""

import functools
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms import v2

from datamodules.transforms.batch import BatchContext

HEIGHT, WIDTH = 40, 56
KINDS = [(torch.uint8, 3), (torch.uint8, 1), (torch.float32, 3)]
OURS, THEIRS = 20_000, 2_000  # draws of this project's and of torchvision's transforms


@functools.cache
def sources() -> list[Tensor]:
    """Return a photo of a temple and one of a flower."""
    return [torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in load_sample_images().images]


def photos(count: int, dtype: torch.dtype = torch.uint8, channels: int = 3, height: int = HEIGHT) -> Tensor:
    """Return different crops, uint8, or float from 0 to 1, ``(count, channels, height, WIDTH)``."""
    places = [(sources()[i % 2], 23 * i % 180, 41 * i % 400) for i in range(count)]
    crops = [v2.functional.resized_crop(photo, y, x, 4 * height, 4 * WIDTH, [height, WIDTH]) for photo, y, x in places]
    return v2.functional.to_dtype(torch.stack(crops)[:, :channels], dtype, scale=True)


def make_draw(count: int, images: Tensor | None = None, seed: int = 0) -> BatchContext:
    """Return the context of a batch."""
    white = 1 if images is not None and images.is_floating_point() else 255
    return BatchContext(torch.Generator().manual_seed(seed), 0, torch.arange(count), seed, 10, white)


def error(images: Tensor, expected: Tensor) -> float:
    """Return the mean difference on the scale of 0 to 255."""
    assert images.dtype == expected.dtype
    assert images.shape == expected.shape
    scale = 255 if images.is_floating_point() else 1
    return (images.float() - expected.float()).abs().mean().item() * scale


def assert_same_distribution(drawn: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> None:
    assert stats.ks_2samp(np.asarray(drawn), np.asarray(theirs)).pvalue > 0.001


def numbers(params: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Return the drawn numbers of each image."""
    return [
        dict(zip(params, values, strict=True))
        for values in zip(*(each.tolist() for each in params.values()), strict=True)
    ]


def their_draws(transform: Any, *names: str) -> list[Tensor]:
    """Return numbers that a torchvision transform draws, by name."""
    image = torch.empty(1, HEIGHT, WIDTH, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(THEIRS)]
    return [torch.tensor([params[name] for params in drawn]) for name in names]


def our_draws(transform: Any) -> dict[str, Tensor]:
    return transform.make_params(torch.empty(1, 1, HEIGHT, WIDTH).expand(OURS, -1, -1, -1), make_draw(OURS))
