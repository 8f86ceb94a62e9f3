"""TrivialAugment and RandAugment: apply random operations of random strength to each image of a batch.

Operations and strengths are those of torchvision, which are not the same in both.
"""

from functools import partial

import torch
from jsonargparse.typing import NonNegativeInt
from torch import Tensor

from datamodules.errors import DataError
from datamodules.transforms import color
from datamodules.transforms.batch import Batch, BatchContext
from datamodules.transforms.geometry import Fill, Interpolation, sample
from datamodules.transforms.per_image import update

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
CHANGES = {
    "Brightness": color.adjust_brightness,
    "Color": color.adjust_saturation,
    "Contrast": color.adjust_contrast,
    "Sharpness": color.adjust_sharpness,
}
OTHERS = {
    "Posterize": color.posterize,
    "Solarize": color.solarize,
    "AutoContrast": color.autocontrast,
    "Equalize": color.equalize,
}
OPERATIONS = ("Identity", *GEOMETRIC, *CHANGES, *OTHERS)
BINS = 31  # strengths, from none to the strongest
Params = tuple[Tensor, Tensor]


class TrivialAugmentWide:
    """Apply one random operation of random strength to every image.

    Equivalent to torchvision's ``v2.TrivialAugmentWide``. From Müller and Hutter, "TrivialAugment: Tuning-free Yet
    State-of-the-Art Data Augmentation", 2021, https://arxiv.org/abs/2103.10158.

    Args:
        interpolation: "nearest" or "bilinear".
        fill: Value of pixels outside the image, on the scale of the images; one number, or one for each channel.
    """

    def __init__(self, interpolation: Interpolation = "nearest", fill: Fill = None) -> None:
        self.interpolation = interpolation
        self.fill = fill

    def make_params(self, images: Tensor, draw: BatchContext) -> Params:
        """Draw the position of each image's operation in ``OPERATIONS``, and its magnitude, ``(N,)``."""
        bins = torch.randint(BINS, images.shape[:1], generator=draw.generator, device=images.device)
        strengths = _strengths(0.99, (32, 32), 135, 0.99, 6, images.device)
        return _draw(strengths, bins, images, draw)

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        params = self.make_params(images, draw)
        return _apply(images.clone(), *params, self.interpolation, self.fill, draw.white), targets


class RandAugment:
    """Apply several random operations of one strength to every image.

    Equivalent to torchvision's ``v2.RandAugment``. From Cubuk et al., "RandAugment: Practical automated data
    augmentation with a reduced search space", 2019, https://arxiv.org/abs/1909.13719.

    Args:
        num_ops: Number of operations, one after the other.
        magnitude: Their strength, from 0 to 30.
        interpolation: "nearest" or "bilinear".
        fill: Value of pixels outside the image, on the scale of the images; one number, or one for each channel.
    """

    def __init__(
        self,
        num_ops: NonNegativeInt = 2,
        magnitude: NonNegativeInt = 9,
        interpolation: Interpolation = "nearest",
        fill: Fill = None,
    ) -> None:
        if magnitude >= BINS:
            raise DataError(f"Expected a magnitude below {BINS} for RandAugment, but got {magnitude}.")
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.interpolation = interpolation
        self.fill = fill

    def make_params(self, images: Tensor, draw: BatchContext) -> list[Params]:
        """Draw, for each of ``num_ops``, what ``TrivialAugmentWide.make_params`` does."""
        shifts = 150 / 331 * images.shape[-1], 150 / 331 * images.shape[-2]
        strengths = _strengths(0.3, shifts, 30, 0.9, 4, images.device)
        bins = torch.full(images.shape[:1], self.magnitude, device=images.device)
        return [_draw(strengths, bins, images, draw) for _ in range(self.num_ops)]

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        params, images = self.make_params(images, draw), images.clone()
        for each in params:
            images = _apply(images, *each, self.interpolation, self.fill, draw.white)
        return images, targets


def _strengths(
    shear: float, shifts: tuple[float, float], degrees: float, change: float, bits: int, device: torch.device
) -> Tensor:
    """Return the magnitudes of each operation, ``(operations, BINS)``: 0 for those that have none."""
    limits = dict(zip(GEOMETRIC, (shear, shear, *shifts, degrees), strict=True)) | dict.fromkeys(CHANGES, change)
    rows = {name: torch.linspace(0, limits.get(name, 0), BINS, device=device) for name in OPERATIONS}
    rows["Posterize"] = (8 - torch.arange(BINS, device=device) / ((BINS - 1) / bits)).round()  # remaining bits
    rows["Solarize"] = torch.linspace(1, 0, BINS, device=device)
    return torch.stack(list(rows.values()))


def _draw(strengths: Tensor, bins: Tensor, images: Tensor, draw: BatchContext) -> Params:
    """Draw operations, and the signs of those magnitudes that can be negative."""
    generator, device = draw.generator, images.device
    operations = torch.randint(len(OPERATIONS), images.shape[:1], generator=generator, device=device)
    is_signed = operations < OPERATIONS.index("Posterize")
    is_negative = (torch.rand(len(images), generator=generator, device=device) <= 0.5) & is_signed
    magnitudes = strengths[operations, bins]
    return operations, torch.where(is_negative, -magnitudes, magnitudes)


def _apply(
    images: Tensor, operations: Tensor, magnitudes: Tensor, interpolation: Interpolation, fill: Fill, white: float
) -> Tensor:
    """Apply an operation to each image, which may be overwritten."""
    shear_x, shear_y, x, y, degrees = (magnitudes * (operations == OPERATIONS.index(name)) for name in GEOMETRIC)
    height, width = images.shape[-2:]
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    # shears keep the upper left corner in its place, rotations the centre; see geometry.affine_maps
    maps = torch.stack(
        [cos, shear_x - sin, shear_x * (height / 2) - x.trunc(), sin + shear_y, cos, shear_y * (width / 2) - y.trunc()],
        dim=1,
    )
    is_geometric = (operations >= 1) & (operations <= len(GEOMETRIC))
    images = sample(images, maps.view(-1, 2, 3), interpolation, fill, is_geometric)
    whole = images.dtype == torch.uint8
    for name, adjust in (CHANGES | OTHERS).items():
        factors = (magnitudes + (name in CHANGES)).view(-1, 1, 1, 1)
        change = partial(adjust, white=white, whole=whole)
        images = update(images, operations == OPERATIONS.index(name), change, factors)
    return images
