"""Rotate, translate, scale or shear each image of a batch by its own random amounts."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from datamodules.transforms.batch import Batch, BatchContext
from datamodules.transforms.per_image import Range, channel_values, check_range, round_to, uniform, update

Fill = float | list[float] | None
Interpolation = Literal["nearest", "bilinear"]
Params = dict[str, Tensor]


class RandomRotation:
    """Rotate images counter-clockwise by random angles around their centre.

    Equivalent to torchvision's ``v2.RandomRotation`` without ``expand`` and ``center``.

    Args:
        degrees: Range of the angles; a number x stands for -x to x.
        interpolation: "nearest" or "bilinear".
        fill: Value of pixels outside the image, on the scale of the images; one number, or one for each channel.
    """

    def __init__(self, degrees: float | Range, interpolation: Interpolation = "nearest", fill: Fill = 0) -> None:
        self.degrees = _around_zero("degrees", degrees)
        self.interpolation = interpolation
        self.fill = fill

    def make_params(self, images: Tensor, draw: BatchContext) -> Params:
        """Draw the angles in degrees ``(N,)``."""
        return {"angle": uniform(self.degrees, images, draw)}

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        angle = self.make_params(images, draw)["angle"]
        zero = torch.zeros_like(angle)
        maps = affine_maps(-angle, (zero, zero), zero + 1, (zero, zero))
        return sample(images.clone(), maps, self.interpolation, self.fill), targets


class RandomAffine:
    """Rotate, translate, scale and shear images by random amounts, around their centre.

    Equivalent to torchvision's ``v2.RandomAffine`` without ``center``.

    Args:
        degrees: Range of the clockwise angles; a number x stands for -x to x.
        translate: Largest shifts to both sides as shares of width and height.
        scale: Range of the factor of the size.
        shear: Range of the shear along x in degrees, or ranges along x and y, as two or four numbers; a number x stands
            for -x to x along x.
        interpolation: "nearest" or "bilinear".
        fill: Value of pixels outside the image, on the scale of the images; one number, or one for each channel.
    """

    def __init__(
        self,
        degrees: float | Range,
        translate: tuple[ClosedUnitInterval, ClosedUnitInterval] | None = None,
        scale: Range | None = None,
        shear: float | Range | tuple[float, float, float, float] | None = None,
        interpolation: Interpolation = "nearest",
        fill: Fill = 0,
    ) -> None:
        self.degrees = _around_zero("degrees", degrees)
        self.translate = translate or (0, 0)
        self.scale = check_range("scale", scale or (1, 1), 1e-6)
        if isinstance(shear, list | tuple) and len(shear) == 4:
            shears: list[float | tuple[float, ...]] = [tuple(shear[:2]), tuple(shear[2:])]
        else:
            shears = [shear or 0, 0]
        self.shear = [_around_zero("shear", each) for each in shears]
        self.interpolation = interpolation
        self.fill = fill

    def make_params(self, images: Tensor, draw: BatchContext) -> Params:
        """Draw angle and shears in degrees, shifts in whole pixels, and the factor of the size, each ``(N,)``."""
        limits = (share * side for share, side in zip(self.translate, images.shape[:-3:-1], strict=True))
        shifts = [uniform((-limit, limit), images, draw).round() for limit in limits]
        return {
            "angle": uniform(self.degrees, images, draw),
            "translate_x": shifts[0],
            "translate_y": shifts[1],
            "scale": uniform(self.scale, images, draw),
            "shear_x": uniform(self.shear[0], images, draw),
            "shear_y": uniform(self.shear[1], images, draw),
        }

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        angle, x, y, scale, shear_x, shear_y = self.make_params(images, draw).values()
        maps = affine_maps(angle, (x, y), scale, (shear_x, shear_y))
        return sample(images.clone(), maps, self.interpolation, self.fill), targets


def affine_maps(angle: Tensor, translate: tuple[Tensor, Tensor], scale: Tensor, shear: tuple[Tensor, Tensor]) -> Tensor:
    """Return the maps from places in the results to places in the images, ``(N, 2, 3)``.

    Places are in pixels, (x, y, 1) from the centre of the image. A map inverts a translation after a rotation after a
    scaling after a shear along y after one along x. Arguments are those of torchvision's ``affine``, as ``(N,)``.
    """
    turn, shear_x, shear_y = angle.deg2rad(), shear[0].deg2rad().tan(), shear[1].deg2rad()
    a, c = (turn - shear_y).cos() / shear_y.cos(), (turn - shear_y).sin() / shear_y.cos()
    b, d = -a * shear_x - turn.sin(), turn.cos() - c * shear_x
    inverse = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / scale.view(-1, 1, 1)
    # a sum of products, because a matrix product may be rounded to TF32
    offset = -(inverse * torch.stack(translate, 1)[:, None]).sum(2)
    return torch.cat([inverse, offset[..., None]], 2)


def sample(
    images: Tensor, maps: Tensor, interpolation: Interpolation, fill: Fill, chosen: Tensor | None = None
) -> Tensor:
    """Sample the chosen images, or all, at affine maps ``(N, 2, 3)`` of the places of pixels; see ``update``."""
    height, width = images.shape[-2:]
    values = None if fill is None else channel_values(fill, images)

    def nearest(images: Tensor, maps: Tensor) -> Tensor:
        border = channel_values(0.0, images) if values is None else round_to(images.dtype, values)
        padded = border.to(images.dtype).expand(*images.shape[:2], height + 2, width + 2).contiguous()
        padded[..., 1:-1, 1:-1] = images
        x, y = (_sources(maps[:, axis], height, width, (side + 1) / 2) for axis, side in enumerate((width, height)))
        x.round_().clamp_(0, width + 1)
        index = x.add_(y.round_().clamp_(0, height + 1), alpha=width + 2).long().view(len(images), 1, -1)
        return padded.flatten(2).gather(2, index.expand(-1, images.shape[1], -1)).view(images.shape)

    def bilinear(images: Tensor, maps: Tensor) -> Tensor:
        pixels = images.float()
        if values is not None:
            pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
        grid = [_sources(maps[:, axis] * (2 / side), height, width) for axis, side in enumerate((width, height))]
        result = F.grid_sample(pixels, torch.stack(grid, 1).permute(0, 2, 3, 1), align_corners=False)
        if values is not None:  # the border is that of torchvision
            result, share = result.tensor_split([-1], 1)
            result = result.mul_(share) if fill == 0 else result.sub_(values).mul_(share).add_(values)
        return round_to(images.dtype, result)

    return update(images, chosen, nearest if interpolation == "nearest" else bilinear, maps)


def _sources(maps: Tensor, height: int, width: int, offset: float = 0) -> Tensor:
    """Return a coordinate of the source of each pixel, ``(N, H, W)``, from its affine map of (x, y, 1), ``(N, 3)``."""
    x, y = (torch.arange(side, device=maps.device) - (side - 1) / 2 for side in (width, height))
    of_x, of_y, constant = maps[:, :, None].unbind(1)
    return (of_x * x)[:, None, :] + (of_y * y + constant + offset)[:, :, None]


def _around_zero(name: str, span: float | tuple[float, ...]) -> Range:
    """Return a range in degrees; a number x stands for -x to x."""
    return check_range(name, (-span, span) if isinstance(span, int | float) else span, -math.inf)
