"""Crop and resize a random box of each image of a batch, or erase it."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor

from datamodules.transforms.batch import Batch, BatchContext, inside
from datamodules.transforms.per_image import Range, channel_values, check_range, round_to, uniform

Params = dict[str, Tensor]
DENSE_SIDE = 64  # pixels up to which multiplication by whole matrices is the fastest resize on a CPU


class RandomResizedCrop:
    """Crop a random area of random aspect ratio, and resize it with antialiasing.

    Equivalent to torchvision's ``v2.RandomResizedCrop``, applied to the decoded images, which have been cropped and
    resized to ``image_size``, not to the original photos. From Szegedy et al., "Going Deeper with Convolutions", 2015,
    https://arxiv.org/abs/1409.4842.

    Args:
        size: Side of the result in pixels.
        scale: Range of the area of the crop, as a share of the image.
        ratio: Range of its aspect ratio, width over height, whose logarithm is drawn uniformly.
    """

    def __init__(self, size: PositiveInt, scale: Range = (0.08, 1.0), ratio: Range = (3 / 4, 4 / 3)) -> None:
        self.size = size
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 1e-6)

    def make_params(self, images: Tensor, draw: BatchContext) -> Params:
        """Draw top, left, height and width of the crops, int64 ``(N,)``."""
        height, width = images.shape[-2:]
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])  # of the central crop where ten draws fail
        fallback = round(min(height, width / shape)), round(min(width, height * shape))
        widths, heights = _draw_sides(self.scale, self.ratio, images, draw)
        fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
        box, found = _place(heights, widths, fits, images, draw)
        central = (height - fallback[0]) // 2, (width - fallback[1]) // 2, *fallback
        return {name: torch.where(found, box[name], other) for name, other in zip(box, central, strict=True)}

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return the resized crops, ``(N, C, size, size)``."""
        top, left, height, width = self.make_params(images, draw).values()
        size = (self.size, self.size)
        if images.device.type == "cpu" and max(images.shape[-2:]) > DENSE_SIDE:
            boxes = zip(images.split(1), *(each.tolist() for each in (top, left, height, width)), strict=True)
            crops = [image[:, :, y : y + h, x : x + w] for image, y, x, h, w in boxes]
            return torch.cat([F.interpolate(crop, size, mode="bilinear", antialias=True) for crop in crops]), targets
        rows = _resize_weights(top, height, images.shape[-2], self.size)
        columns = _resize_weights(left, width, images.shape[-1], self.size)
        # TF32, which fit allows on a GPU, changes less than 0.2 of 255
        resized = torch.einsum("nyh,nchw,nxw->ncyx", rows, images.float(), columns)
        return round_to(images.dtype, resized), targets


class RandomErasing:
    """Fill a box of random area and aspect ratio inside an image, with probability ``p``.

    Equivalent to torchvision's ``v2.RandomErasing``, except for ``value: random``. From Zhong et al., "Random Erasing
    Data Augmentation", 2017, https://arxiv.org/abs/1708.04896.

    Args:
        p: Probability.
        scale: Range of the area of the box, as a share of the image.
        ratio: Range of its aspect ratio, height over width, whose logarithm is drawn uniformly.
        value: Of the box, on the scale of the images; one number, or one for each channel. "random" draws every pixel
            uniformly from black to white, as in the paper.
    """

    def __init__(
        self,
        p: ClosedUnitInterval = 0.5,
        scale: Range = (0.02, 0.33),
        ratio: Range = (0.3, 3.3),
        value: float | list[float] | Literal["random"] = 0.0,
    ) -> None:
        self.p = p
        self.scale = check_range("scale", scale, 0, 1)
        self.ratio = check_range("ratio", ratio, 1e-6)
        self.value = value

    def make_params(self, images: Tensor, draw: BatchContext) -> Params:
        """Draw top, left, height and width of the boxes, int64 ``(N,)``; height is 0 where nothing is erased."""
        heights, widths = _draw_sides(self.scale, self.ratio, images, draw)
        fits = (heights < images.shape[-2]) & (widths < images.shape[-1])
        box, found = _place(heights, widths, fits, images, draw)
        chosen = found & (uniform((0, 1), images, draw) < self.p)
        return {**box, "height": box["height"] * chosen}

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        top, left, height, width = self.make_params(images, draw).values()
        box = inside(images, left, top, left + width, top + height)
        if isinstance(self.value, str):
            fill = uniform((0, draw.white + (images.dtype == torch.uint8)), images, draw, *images.shape[1:])
        else:
            fill = channel_values(self.value, images)
        if self.value == 0:
            return images * ~box, targets  # on a CPU, much faster than torch.where
        return torch.where(box, fill.to(images.dtype), images), targets


def _draw_sides(scale: Range, ratio: Range, images: Tensor, draw: BatchContext) -> tuple[Tensor, Tensor]:
    """Draw ten boxes for each image; return the sides, of which the first over the second is the ratio, ``(N, 10)``."""
    area = uniform(scale, images, draw, 10) * (images.shape[-2] * images.shape[-1])
    shape = uniform((math.log(ratio[0]), math.log(ratio[1])), images, draw, 10).exp()
    return (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()


def _place(
    heights: Tensor, widths: Tensor, fits: Tensor, images: Tensor, draw: BatchContext
) -> tuple[dict[str, Tensor], Tensor]:
    """Place the first box of each image that fits uniformly inside; return whether there is one ``(N,)``, too."""
    first = fits.long().argmax(1, keepdim=True)
    height, width = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    free = [images.shape[-2] - height + 1, images.shape[-1] - width + 1]
    top, left = ((uniform((0, 1), images, draw) * places).long() for places in free)
    return {"top": top, "left": left, "height": height, "width": width}, fits.any(1)


def _resize_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Return the shares of pixels in the resized crop of one dimension, ``(N, size, side)``: a triangle filter."""
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    scale = length / size
    places = torch.arange(side, device=start.device)
    centres = start + scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    weights = (places + 0.5 - centres).abs_().div_(-scale.clamp(min=1)).add_(1).clamp_(min=0)
    weights *= (places >= start) & (places < start + length)
    return weights.div_(weights.sum(2, keepdim=True))
