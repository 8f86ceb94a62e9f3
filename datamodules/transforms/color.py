"""Change the colours of each image of a batch by its own random amounts.

The functions are those of torchvision of the same names. They take pixels of one or three channels ``(N, C, H, W)``,
uint8 or float from 0 to ``white``; a number for each image ``(N, 1, 1, 1)``; and whether pixels are ``whole`` numbers,
uint8 or float. They return uint8 or float pixels, which the caller rounds down if the original ones are whole.
"""

from functools import partial

import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from datamodules.errors import DataError
from datamodules.transforms.batch import Batch, BatchContext
from datamodules.transforms.per_image import Range, check_range, uniform, update


def adjust_brightness(pixels: Tensor, factor: Tensor, white: float, whole: bool) -> Tensor:
    """Multiply pixels by a factor."""
    return (pixels * factor).clamp_(0, white)


def adjust_contrast(pixels: Tensor, factor: Tensor, white: float, whole: bool) -> Tensor:
    """Multiply the differences from the mean grey by a factor."""
    return _blend(pixels, to_grey(pixels, whole).mean((1, 2, 3), keepdim=True), factor, white)


def adjust_saturation(pixels: Tensor, factor: Tensor, white: float, whole: bool) -> Tensor:
    """Multiply the differences from grey by a factor."""
    return pixels if pixels.shape[1] == 1 else _blend(pixels, to_grey(pixels, whole), factor, white)


def adjust_hue(pixels: Tensor, shift: Tensor, white: float, whole: bool) -> Tensor:
    """Turn the hue by a share of the circle of colours."""
    if pixels.shape[1] == 1:
        return pixels
    _check_rgb(pixels)
    if whole:  # torchvision rounds down after this factor, which keeps 255
        pixels = pixels * (255.999 / 255)
    red, green, blue = pixels.float().unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # the hue as a share of the circle from red, times six times the chroma
    from_green = torch.where(value == green, (blue - red).add_(chroma, alpha=2), (red - green).add_(chroma, alpha=4))
    hue = torch.where(value == red, green - blue, from_green).div_(6 * chroma.clamp(min=1e-8 * white))
    # each channel is the value less a share of the chroma, by the distance of its hue from the turned one
    hues = torch.arange(5, 0, -2, device=pixels.device).view(3, 1, 1) / 6
    share = (hue.unsqueeze_(1) + (shift + 1) + hues).frac_().sub_(1 / 3).abs_().mul_(-6).add_(2).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze_(1), chroma.unsqueeze_(1), share, value=-1)


def adjust_sharpness(pixels: Tensor, factor: Tensor, white: float, whole: bool) -> Tensor:
    """Multiply the differences from blurred pixels by a factor, except at the border."""
    if min(pixels.shape[-2:]) <= 2:
        return pixels
    result = pixels.float().clone()
    rows = result[..., :-2] + result[..., 1:-1] + result[..., 2:]
    inner = result[..., 1:-1, 1:-1]
    blurred = (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).add_(inner, alpha=4).div_(13)
    if whole:
        blurred.round_()
    inner += blurred.sub_(inner).mul_(1 - factor)
    return result.clamp_(0, white)


def posterize(pixels: Tensor, bits: Tensor, white: float, whole: bool) -> Tensor:
    """Keep the highest bits of pixels."""
    levels = bits.exp2().round()
    if whole:
        return pixels & (256 - 256 / levels).to(pixels.dtype)
    step = white / levels
    return torch.minimum((pixels / step).floor_().mul_(step), white - step)


def solarize(pixels: Tensor, threshold: Tensor, white: float, whole: bool) -> Tensor:
    """Invert pixels from a threshold, which is a share of white."""
    return torch.where(pixels >= threshold * white, white - pixels, pixels)


def autocontrast(pixels: Tensor, unused: Tensor, white: float, whole: bool) -> Tensor:
    """Stretch each channel to the range from 0 to white."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    scale = (high - low) * (1 / white)  # torchvision's rounding: a quotient by it may be just below a whole number
    is_flat = high == low
    return (pixels - low * ~is_flat).div(scale + is_flat).clamp_(0, white)


def equalize(pixels: Tensor, unused: Tensor, white: float, whole: bool) -> Tensor:
    """Map the levels of each channel, of which there are 256, so that they become equally frequent."""
    levels = (pixels if whole else pixels * (255.999 / white)).long().flatten(2)
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, levels.new_ones(1).expand_as(levels))
    of_highest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - of_highest) // 255
    table = ((counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)).clamp_(max=255)
    return torch.where(step > 0, table.gather(2, levels), levels).view_as(pixels) * (white / 255)


def to_grey(pixels: Tensor, whole: bool) -> Tensor:
    """Return the luminance of pixels, ``(N, 1, H, W)``."""
    if pixels.shape[1] == 1:
        return pixels.float()
    _check_rgb(pixels)
    red, green, blue = pixels.split(1, 1)
    grey = (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return grey.floor_() if whole else grey


def _check_rgb(pixels: Tensor) -> None:
    if pixels.shape[1] != 3:
        raise DataError(
            f"Expected images of 1 or 3 channels for changes of colour, but got {pixels.shape[1]}. Remove ColorJitter, "
            "RandomGrayscale, TrivialAugmentWide and RandAugment, or use --data.channels 3."
        )


def _blend(pixels: Tensor, others: Tensor, share: Tensor, white: float) -> Tensor:
    return (pixels * share).add_(others * (1 - share)).clamp_(0, white)


ADJUST = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


class ColorJitter:
    """Change brightness, contrast, saturation and hue in random order.

    Equivalent to torchvision's ``v2.ColorJitter``, with an order of its own for every image.

    Args:
        brightness: Pixels are multiplied by a factor from this range; a number x stands for 1 - x, but at least 0, to
            1 + x, and None for no change.
        contrast: The same for differences from the mean grey of an image.
        saturation: The same for differences from the grey of each pixel.
        hue: Hues are turned by a share of the circle of colours from this range, within -0.5 to 0.5; a number x stands
            for -x to x.
    """

    def __init__(
        self,
        brightness: float | Range | None = None,
        contrast: float | Range | None = None,
        saturation: float | Range | None = None,
        hue: float | Range | None = None,
    ) -> None:
        factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        spans = {
            name: check_range(name, (max(1 - factor, 0), 1 + factor) if isinstance(factor, int | float) else factor, 0)
            for name, factor in factors.items()
            if factor is not None
        }
        if hue is not None:
            spans["hue"] = check_range("hue", (-hue, hue) if isinstance(hue, int | float) else hue, -0.5, 0.5)
        self.spans = spans

    def make_params(self, images: Tensor, draw: BatchContext) -> dict[str, Tensor]:
        """Draw the factor of each change ``(N,)``, and the order, in which each change is a row of ``spans``."""
        order = torch.rand(len(images), len(self.spans), generator=draw.generator, device=images.device).argsort(1)
        return {"order": order, **{name: uniform(span, images, draw) for name, span in self.spans.items()}}

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        if not self.spans:
            return images, targets
        order, *factors = self.make_params(images, draw).values()
        factors = [factor.view(-1, 1, 1, 1) for factor in factors]
        jitter = partial(_jitter, names=list(self.spans), white=draw.white, whole=images.dtype == torch.uint8)
        return update(images.clone(), None, jitter, order, *factors), targets


def _jitter(images: Tensor, order: Tensor, *factors: Tensor, names: list[str], white: float, whole: bool) -> Tensor:
    """Change images, which may be overwritten, in the order of each."""
    pixels = images.float()
    for place in range(len(names)):
        for number, name in enumerate(names):
            adjust = partial(ADJUST[name], white=white, whole=whole)
            pixels = update(pixels, order[:, place] == number, adjust, factors[number])
        if whole:
            pixels = pixels.floor_()
    return pixels


class RandomGrayscale:
    """Replace images by their luminance, in all channels, with probability ``p``, like torchvision's transform."""

    def __init__(self, p: ClosedUnitInterval = 0.1) -> None:
        self.p = p

    def __call__(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        chosen = uniform((0, 1), images, draw) < self.p
        return update(images.clone(), chosen, lambda some: to_grey(some, False).to(some.dtype).expand_as(some)), targets
