"""Compare rotations and affine maps with torchvision's, given the same drawn numbers; all seeds are fixed."""

from typing import Any

import pytest
import torch
from random_draws import (
    KINDS,
    OURS,
    assert_same_distribution,
    error,
    make_draw,
    numbers,
    our_draws,
    photos,
    their_draws,
)
from torchvision.transforms import v2

from datamodules import DataError
from datamodules.transforms.geometry import RandomAffine, RandomRotation


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize(
    "options",
    [{}, {"interpolation": "bilinear"}, {"fill": 0.6}, {"interpolation": "bilinear", "fill": 1}],
)
def test_rotations_equal_torchvisions(dtype: torch.dtype, channels: int, options: dict[str, Any]) -> None:
    images = photos(24, dtype, channels)
    transform = RandomRotation((-100, 60), **options)
    results, _ = transform(images, torch.arange(24), make_draw(24))
    theirs = {"fill": 0, **options, "interpolation": v2.InterpolationMode(options.get("interpolation", "nearest"))}
    drawn = numbers(transform.make_params(images, make_draw(24)))
    expected = [v2.functional.rotate(image, **each, **theirs) for image, each in zip(images, drawn, strict=True)]
    assert error(results, torch.stack(expected)) < 0.1


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"degrees": 0, "translate": (0.3, 0.5)},
        {"degrees": (-180, 180), "translate": (0.2, 0.1), "scale": (0.5, 2), "shear": (-20, 30, -10, 10)},
        {"degrees": 10, "shear": 20, "interpolation": "bilinear", "scale": (0.7, 0.8)},
    ],
)
def test_affine_maps_equal_torchvisions(dtype: torch.dtype, channels: int, options: dict[str, Any]) -> None:
    images = photos(24, dtype, channels)
    fill = [0.2, 0.4, 0.6][:channels]
    transform = RandomAffine(**options, fill=fill)
    results, _ = transform(images, torch.arange(24), make_draw(24))
    mode = v2.InterpolationMode(options.get("interpolation", "nearest"))
    expected = [
        v2.functional.affine(
            image,
            each["angle"],
            [each["translate_x"], each["translate_y"]],
            each["scale"],
            [each["shear_x"], each["shear_y"]],
            interpolation=mode,
            fill=fill,
        )
        for image, each in zip(images, numbers(transform.make_params(images, make_draw(24))), strict=True)
    ]
    assert error(results, torch.stack(expected)) < 0.1


def test_rotations_and_affine_maps_are_distributed_as_torchvisions() -> None:
    (angles,) = their_draws(v2.RandomRotation((-20, 50)), "angle")
    assert_same_distribution(our_draws(RandomRotation((-20, 50)))["angle"], angles)
    options: dict[str, Any] = {"degrees": 30, "translate": (0.1, 0.3), "scale": (0.5, 2), "shear": (-5, 9, 1, 3)}
    expected = their_draws(v2.RandomAffine(**options), "angle", "translate", "scale", "shear")
    angles, shifts, scales, shears = expected
    drawn = our_draws(RandomAffine(**options))
    assert list(drawn) == ["angle", "translate_x", "translate_y", "scale", "shear_x", "shear_y"]
    for each, other in zip(drawn.values(), (angles, *shifts.T, scales, *shears.T), strict=True):
        assert_same_distribution(each, other)
    assert torch.corrcoef(torch.stack(list(drawn.values()))).fill_diagonal_(0).abs().max() < 4 / OURS**0.5
    alone = our_draws(RandomAffine(30, shear=5))
    assert alone["shear_x"].aminmax() == pytest.approx((-5, 5), abs=0.1)
    assert not any(alone[name].any() for name in ("translate_x", "translate_y", "shear_y"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(0, scale=(0, 1)), "Expected scale as two increasing numbers from 1e-06"),
        (lambda: RandomRotation(-5), r"Expected degrees as two increasing numbers .* got \[5, -5\]"),
        (lambda: RandomRotation(5, fill=[1, 2])(photos(2), torch.arange(2), make_draw(2)), "each of 3 channels"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
