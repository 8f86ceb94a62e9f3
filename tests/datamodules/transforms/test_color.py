"""Compare the changes of colours with torchvision's, given the same drawn numbers; all seeds are fixed."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from random_draws import KINDS, OURS, THEIRS, assert_same_distribution, error, make_draw, photos
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from datamodules import DataError
from datamodules.transforms.batch import MixUp
from datamodules.transforms.color import ColorJitter, RandomGrayscale

ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize(
    "options",
    [{"brightness": 0.8}, {"contrast": 1}, {"saturation": 2}, {"hue": 0.5}, dict.fromkeys(ADJUST, 0.4)],
)
def test_changed_colours_equal_torchvisions(dtype: torch.dtype, channels: int, options: dict[str, float]) -> None:
    images = photos(30, dtype, channels)
    images[0] = images[0, :1]  # grey
    transform = ColorJitter(**options)
    results, _ = transform(images, torch.arange(30), make_draw(30, images))
    params = transform.make_params(images, make_draw(30, images))
    names = list(options)
    expected = []
    for number, image in enumerate(images):
        for change in params["order"][number].tolist():
            name = names[change]
            image = ADJUST[name](image, params[name][number].item())
        expected.append(image)
    assert error(results, torch.stack(expected)) < 0.05


def test_colours_are_distributed_as_torchvisions() -> None:
    options: dict[str, Any] = {"brightness": 1.5, "contrast": (0.5, 0.7), "saturation": 0.4, "hue": 0.3}
    images = torch.empty(1, 3, 1, 1, dtype=torch.uint8).expand(OURS, -1, -1, -1)
    drawn = ColorJitter(**options).make_params(images, make_draw(OURS))
    jitter = v2.ColorJitter(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [jitter.make_params([]) for _ in range(THEIRS)]
    for name in options:
        assert_same_distribution(drawn[name], np.array([params[f"{name}_factor"] for params in theirs]))
    orders = {order: number for number, order in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([orders[tuple(order)] for order in drawn["order"].tolist()], minlength=24)
    assert stats.chisquare(counts).pvalue > 0.001


def test_colours_of_mixed_images_keep_their_scale() -> None:
    images, targets = photos(16), torch.arange(16) % 10
    mixed, soft = MixUp()(images, targets, make_draw(16))
    results, _ = ColorJitter(0.4, 0.4, 0.4, 0.1)(mixed, soft, make_draw(16))
    assert results.dtype == torch.float32
    assert abs(results.mean() / mixed.mean() - 1) < 0.1


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_grey_images_are_as_frequent_as_asked_for_and_equal_torchvisions(dtype: torch.dtype, channels: int) -> None:
    images = photos(200, dtype, channels)
    results, _ = RandomGrayscale(0.3)(images, torch.arange(200), make_draw(200))
    grey = functional.rgb_to_grayscale(images, channels)
    is_grey = (results == grey).flatten(1).all(1)
    torch.testing.assert_close(results, torch.where(is_grey.view(-1, 1, 1, 1), grey, images))
    assert channels == 1 or abs(is_grey.float().mean() - 0.3) < 0.13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": -1.0}, r"Expected brightness as two increasing numbers from 0 to inf, but got \[2.0, 0.0\]"),
        ({"hue": 0.6}, r"Expected hue as two increasing numbers from -0.5 to 0.5, but got \[-0.6, 0.6\]"),
        ({"contrast": (0.5,)}, "Expected contrast as two increasing numbers"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ColorJitter(**options)


def test_colours_of_four_channels_are_refused() -> None:
    with pytest.raises(DataError, match="Expected images of 1 or 3 channels for changes of colour, but got 4"):
        ColorJitter(saturation=0.5)(torch.zeros(2, 4, 8, 8), torch.zeros(2), make_draw(2))
