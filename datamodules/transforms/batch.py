"""Augmentation of whole batches on their device, with separate random parameters for every image.

No transform synchronises with the device: none reads tensor values on the host or copies tensors from it.
"""

import dataclasses
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from datamodules.errors import DataError

Batch = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class BatchContext:
    """Random state and metadata for a transform of a batch: the same context gives the same batch in every run."""

    generator: torch.Generator  # seeded for this batch, on the images' device
    epoch: int  # from 0
    positions: Tensor  # of the images in the dataset, int64 (N,), on their device
    seed: int  # of the run
    num_classes: int
    white: int = 255  # on the scale of the images, whose black is 0


class BatchTransform(Protocol):
    """A transform of a batch, which keeps the scale of its images because they are normalised after it.

    Images are uint8 or float ``(N, C, H, W)`` on any scale, targets int64 ``(N,)`` or float ``(N, num_classes)``. The
    result has the same shapes and types, unless its docstring names others.
    """

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch: ...


class RandomCrop:
    """Pad images and crop each at a uniformly random position.

    Equivalent to torchvision's ``v2.RandomCrop``, whose ``padding_mode`` "constant" is "zeros" here.

    Args:
        padding: Pixels added to each of the four sides.
        size: Side of the square crop; by default that of the images.
        padding_mode: "zeros", or "reflect", which mirrors the image at its outermost pixels.
    """

    def __init__(
        self,
        padding: NonNegativeInt,
        size: PositiveInt | None = None,
        padding_mode: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        self.padding = padding
        self.size = size
        self.padding_mode = padding_mode

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return the crops, ``(N, C, size, size)``."""
        padding = [self.padding] * 4
        if self.padding_mode == "zeros":
            padded = F.pad(images, padding)
        else:  # reflect mode does not support uint8 on the CPU
            padded = F.pad(images.float(), padding, "reflect").to(images.dtype)
        height, width = images.shape[-2:] if self.size is None else (self.size, self.size)
        top = _integers(padded.shape[-2] - height + 1, padded, draw)
        left = _integers(padded.shape[-1] - width + 1, padded, draw)
        # indexing a view of all windows takes a fifth of the time of indexing every pixel
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(images), device=images.device), :, top, left], targets


class RandomHorizontalFlip:
    """Flip images horizontally, each with probability ``p``."""

    def __init__(self, p: ClosedUnitInterval = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        chosen = torch.rand(len(images), generator=draw.generator, device=images.device) < self.p
        return _flip(images, chosen), targets


class AlternatingFlip:
    """Flip a random half of the images in epoch 0, and then alternately the other half and the same half.

    Two consecutive epochs so contain every image in both orientations. From Jordan, "94% on CIFAR-10 in 3.29 Seconds on
    a Single GPU", 2024, https://arxiv.org/abs/2404.00498.
    """

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        return _flip(images, (_hash(draw.positions, draw.seed) + draw.epoch) % 2 == 0), targets


class Cutout:
    """Fill a square at a uniformly random position inside each image.

    Equivalent to torchvision's ``v2.RandomErasing(p=1, scale=(size**2 / (H * W),) * 2, ratio=(1, 1), value=fill)``; the
    squares of DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552, may extend beyond the border.

    Args:
        size: Side of the square in pixels.
        fill: Value of the square on the images' scale; truncated to an integer for uint8 images.
    """

    def __init__(self, size: PositiveInt, fill: float = 0) -> None:
        self.size = size
        self.fill = fill

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        height, width = images.shape[-2:]
        top = _integers(height - self.size + 1, images, draw)
        left = _integers(width - self.size + 1, images, draw)
        return images.masked_fill(inside(images, left, top, left + self.size, top + self.size), self.fill), targets


class MixUp:
    """Blend every image and its target with the previous ones in the batch.

    Like torchvision's ``v2.MixUp``, but with a separate mixing coefficient for each image. Zhang et al., "mixup: Beyond
    Empirical Risk Minimization", 2018, https://arxiv.org/abs/1710.09412.

    Args:
        alpha: Coefficients are drawn from Beta(alpha, alpha): near 0 or 1 if alpha is small, uniformly if it is 1.
    """

    def __init__(self, alpha: PositiveFloat = 0.2) -> None:
        self.alpha = alpha

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return float images on the same scale and float targets ``(N, num_classes)``."""
        share = _shares(self.alpha, images, draw)
        return _blend(images.float(), share), _blend(_soft(targets, draw.num_classes), share)


class CutMix:
    """Paste a box of the previous image in the batch into every image, and blend the targets by area.

    Like torchvision's ``v2.CutMix``, but with a separate box for each image. Yun et al., "CutMix: Regularization
    Strategy to Train Strong Classifiers with Localizable Features", 2019, https://arxiv.org/abs/1905.04899.

    Args:
        alpha: The share of an image outside the box is drawn from Beta(alpha, alpha), uniformly if alpha is 1. It is
            larger in the result, because many boxes are clipped at the border.
    """

    def __init__(self, alpha: PositiveFloat = 1.0) -> None:
        self.alpha = alpha

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return images of the same shape and dtype and float targets ``(N, num_classes)``."""
        height, width = images.shape[-2:]
        half = 0.5 * (1 - _shares(self.alpha, images, draw)).sqrt()
        half_width, half_height = (half * width).long(), (half * height).long()
        x, y = _integers(width, images, draw), _integers(height, images, draw)  # the centre
        left, top = (x - half_width).clamp(min=0), (y - half_height).clamp(min=0)
        right, bottom = (x + half_width).clamp(max=width), (y + half_height).clamp(max=height)
        mixed = torch.where(inside(images, left, top, right, bottom), images.roll(1, 0), images)
        outside = 1 - (right - left) * (bottom - top) / (height * width)
        return mixed, _blend(_soft(targets, draw.num_classes), outside)


class ProgressiveResize:
    """Downscale images in early epochs, when coarse shapes are learnt: half the side takes a quarter of the time.

    For networks that accept any image size, such as ``Airbench`` and ``ResNet``. It must be the last transform. Source:
    Howard, 2018, "Training Imagenet in 3 hours for $25; and CIFAR10 for $0.26" (fast.ai).

    Args:
        sizes: Side in pixels by first epoch, such as ``{0: 16, 4: 24}``; the original size before the first.
    """

    def __init__(self, sizes: dict[int, PositiveInt]) -> None:
        self.sizes = sizes

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return float images of the epoch's size on the same scale; images of that size are returned unchanged."""
        start = max((epoch for epoch in self.sizes if epoch <= draw.epoch), default=None)
        if start is None or self.sizes[start] == images.shape[-1]:
            return images, targets
        return F.interpolate(images.float(), (self.sizes[start],) * 2, mode="bilinear", antialias=True), targets


def _integers(stop: int, images: Tensor, draw: BatchContext) -> Tensor:
    """Draw an integer from ``[0, stop)`` for every image; raise DataError if a crop or box exceeds the images."""
    if stop < 1:
        size = tuple(images.shape[-2:])
        raise DataError(f"Expected a size within that of the images, {size}, but got one that is {1 - stop} larger.")
    return torch.randint(stop, (len(images),), generator=draw.generator, device=images.device)


def _shares(alpha: float, images: Tensor, draw: BatchContext) -> Tensor:
    """Draw a number from Beta(alpha, alpha) for every image."""
    # torch.distributions.Beta uses this private function too, but accepts no generator
    alphas = torch.full((len(images), 2), alpha, device=images.device)
    return torch._sample_dirichlet(alphas, draw.generator)[:, 0]


def _hash(positions: Tensor, seed: int) -> Tensor:
    """Return the outputs of splitmix64 at ``positions``, starting from ``seed``, as int64 of all 64 bits.

    Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014; constants of https://prng.di.unimi.it.
    """
    # int64 products wrap around like those of uint64, but the right shift extends the sign, which the masks remove
    bits = (positions + 1) * (0x9E3779B97F4A7C15 - 2**64) + seed % 2**63
    bits = (bits ^ (bits >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    bits = (bits ^ (bits >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - 2**64)
    return bits ^ (bits >> 31 & (1 << 33) - 1)


def _flip(images: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def inside(images: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """Return the mask of each image's box, bool ``(N, 1, H, W)``; ``right`` and ``bottom`` are exclusive."""
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def _soft(targets: Tensor, num_classes: int) -> Tensor:
    """Return float targets ``(N, num_classes)``."""
    if targets.is_floating_point():
        return targets
    # F.one_hot would read the largest label on the host
    return torch.zeros(len(targets), num_classes, device=targets.device).scatter_(1, targets[:, None], 1.0)


def _blend(values: Tensor, share: Tensor) -> Tensor:
    """Blend each row, by its share, with the previous row; the row before the first is the last."""
    return torch.lerp(values.roll(1, 0), values, share.to(values.dtype).view(-1, *[1] * (values.ndim - 1)))
