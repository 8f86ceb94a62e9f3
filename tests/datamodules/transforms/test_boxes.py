"""Compare crops and erased boxes with torchvision's, given the same drawn numbers; all seeds are fixed."""

from typing import Any

import pytest
import torch
from random_draws import (
    HEIGHT,
    KINDS,
    OURS,
    THEIRS,
    WIDTH,
    assert_same_distribution,
    error,
    make_draw,
    numbers,
    our_draws,
    photos,
    their_draws,
)
from torch import Tensor
from torchvision.transforms import v2

from datamodules import DataError
from datamodules.transforms import boxes
from datamodules.transforms.boxes import RandomErasing, RandomResizedCrop


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("size", [17, 40, 90])
@pytest.mark.parametrize("dense_side", [1000, 0])  # with matrices, and with a loop on a CPU
def test_resized_crops_equal_torchvisions(
    dtype: torch.dtype, channels: int, size: int, dense_side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "DENSE_SIDE", dense_side)
    images = photos(24, dtype, channels)
    transform = RandomResizedCrop(size)
    results, _ = transform(images, torch.arange(24), make_draw(24))
    drawn = numbers(transform.make_params(images, make_draw(24)))
    expected = [v2.functional.resized_crop(i, **each, size=[size] * 2) for i, each in zip(images, drawn, strict=True)]
    assert error(results, torch.stack(expected)) < 0.5
    assert results.is_contiguous()


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": (0.5, 0.9), "ratio": (1, 2)}, {"scale": (0.9, 1.0), "ratio": (2, 3)}, {"scale": (1, 1)}],
)
def test_crops_are_distributed_as_torchvisions(options: dict[str, Any]) -> None:
    expected = their_draws(v2.RandomResizedCrop(8, **options), "top", "left", "height", "width")
    drawn = list(our_draws(RandomResizedCrop(8, **options)).values())
    for each, other in zip(drawn, expected, strict=True):
        assert_same_distribution(each, other)
    assert_same_distribution(drawn[2] * drawn[3], expected[2] * expected[3])
    assert_same_distribution(drawn[2] / drawn[3], expected[2] / expected[3])


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("value", [0, 0.7, "channels"])
def test_erased_boxes_equal_torchvisions(dtype: torch.dtype, channels: int, value: Any) -> None:
    images = photos(60, dtype, channels)
    value = [0.2, 0.4, 0.6][:channels] if value == "channels" else value
    transform = RandomErasing(value=value)
    results, _ = transform(images, torch.arange(60), make_draw(60))
    fill = torch.tensor(value).view(-1, 1, 1).to(dtype)
    drawn = zip(*(each.tolist() for each in transform.make_params(images, make_draw(60)).values()), strict=True)
    expected = [v2.functional.erase(image, *box, fill) for image, box in zip(images, drawn, strict=True)]
    assert torch.equal(results, torch.stack(expected))


@pytest.mark.parametrize("options", [{}, {"p": 1, "scale": (0.5, 1), "ratio": (0.2, 1)}])
def test_erased_boxes_are_distributed_as_torchvisions(options: dict[str, Any]) -> None:
    top, left, height, width, value = theirs_erased(v2.RandomErasing(**options))
    drawn = our_draws(RandomErasing(**options))
    erased = drawn["height"] > 0
    rate = options.get("p", 0.5) * value.float().mean()
    assert abs(erased.float().mean() - rate) < 4 * (0.25 / OURS + 0.25 / THEIRS) ** 0.5
    for name, other in {"top": top, "left": left, "height": height, "width": width}.items():
        assert_same_distribution(drawn[name][erased], other[value])
    area = (drawn["height"] * drawn["width"])[erased]
    assert_same_distribution(area, (height * width)[value])


def theirs_erased(transform: Any) -> list[Tensor]:
    """Return the boxes that torchvision draws, and whether it has found one."""
    make_params = transform.make_params
    transform.make_params = lambda inputs: {**(params := make_params(inputs)), "found": params["v"] is not None}
    return their_draws(transform, "i", "j", "h", "w", "found")


def test_random_values_are_drawn_for_every_pixel_from_black_to_white() -> None:
    images = torch.zeros(50, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    transform = RandomErasing(1, value="random")
    results, _ = transform(images, torch.arange(50), make_draw(50))
    values = results[results > 0]
    assert values.unique().tolist() == list(range(1, 256))
    assert abs(values.float().mean() - 128) < 2
    floats, _ = transform(images.float(), torch.arange(50), make_draw(50, images.float()))
    assert 0 < floats.max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(8, scale=(0.5, 2)), r"Expected scale as two increasing numbers from 0 to 1, but"),
        (lambda: RandomErasing(ratio=(3, 1)), r"Expected ratio as two increasing numbers .* got \[3, 1\]"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
