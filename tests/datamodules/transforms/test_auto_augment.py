"""Compare TrivialAugment and RandAugment with torchvision's, given the same drawn numbers; all seeds are fixed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_draws import HEIGHT, KINDS, OURS, WIDTH, error, make_draw, photos
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from datamodules import DataError
from datamodules.transforms import auto_augment, boxes, per_image
from datamodules.transforms.auto_augment import BINS, CHANGES, GEOMETRIC, OPERATIONS, RandAugment, TrivialAugmentWide
from datamodules.transforms.batch import BatchTransform
from datamodules.transforms.boxes import RandomErasing, RandomResizedCrop
from datamodules.transforms.color import ColorJitter, RandomGrayscale
from datamodules.transforms.geometry import RandomRotation

PAIRS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (TrivialAugmentWide, v2.TrivialAugmentWide),
    (RandAugment, v2.RandAugment),
]


def magnitudes(theirs: Any, name: str, bins: int) -> list[float]:
    """Return the magnitudes of an operation of torchvision; those that it has only with a negative sign, too."""
    make, is_signed = theirs._AUGMENTATION_SPACE[name]
    values = make(bins, HEIGHT, WIDTH)
    positive = [0.0] if values is None else [float(value) for value in values]
    return [*positive, *(-value for value in positive if is_signed)]


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_equals_torchvisions_at_every_magnitude(name: str, dtype: torch.dtype, channels: int) -> None:
    values = magnitudes(v2.TrivialAugmentWide, name, 31)
    images = photos(len(values), dtype, channels)
    images[0] = 0.4 if dtype.is_floating_point else 100  # without contrast
    theirs = v2.TrivialAugmentWide()
    expected = [
        theirs._apply_image_or_video_transform(image, name, value, theirs.interpolation, theirs._fill)
        for image, value in zip(images, values, strict=True)
    ]
    operations = torch.full((len(values),), OPERATIONS.index(name))
    white = 1 if dtype.is_floating_point else 255
    results = auto_augment._apply(images.clone(), operations, torch.tensor(values), "nearest", None, white)
    # where a shear needs a pixel halfway between two rows, torchvision takes either
    assert error(results, torch.stack(expected)) < (2 if name in GEOMETRIC else 0.02)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("options", [{}, {"interpolation": "bilinear", "fill": 50}])
def test_augmented_images_equal_torchvisions(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    images = photos(100)
    results, _ = ours(**options)(images, torch.arange(100), make_draw(100))
    params = ours(**options).make_params(images, make_draw(100))
    mode = v2.InterpolationMode(options.pop("interpolation", "nearest"))
    peer = theirs(interpolation=mode, **options)
    expected = []
    for number, image in enumerate(images):
        for operation, magnitude in params if isinstance(params, list) else [params]:
            name, value = OPERATIONS[operation[number]], magnitude[number].item()
            image = peer._apply_image_or_video_transform(image, name, value, mode, peer._fill)
        expected.append(image)
    assert error(results, torch.stack(expected)) < 1


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_operations_and_magnitudes_are_distributed_as_torchvisions(ours: Any, theirs: Any) -> None:
    assert [*theirs._AUGMENTATION_SPACE] == [*OPERATIONS]
    transform = ours() if ours is TrivialAugmentWide else ours(1, 5)
    images = torch.empty(1, 3, HEIGHT, WIDTH, dtype=torch.uint8).expand(OURS, -1, -1, -1)
    params = transform.make_params(images, make_draw(OURS))
    operations, drawn = params if isinstance(params, tuple) else params[0]
    assert stats.chisquare(np.bincount(operations, minlength=len(OPERATIONS))).pvalue > 0.001
    for number, name in enumerate(OPERATIONS):
        options = magnitudes(theirs, name, BINS)
        if ours is RandAugment:
            options = options[5::BINS] or options
        values, counts = drawn[operations == number].unique(return_counts=True)
        # 0 has two signs, and bits can repeat
        wanted, weights = np.unique(np.array(options, np.float32) + 0.0, return_counts=True)
        np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-6)
        assert (
            stats.chisquare(counts, weights / weights.sum() * counts.sum().item()).pvalue > 0.0005 or len(wanted) == 1
        )


@pytest.mark.parametrize(
    "transform",
    [
        RandomResizedCrop(30),
        RandomErasing(value=0.3),
        RandomRotation(40, "bilinear"),
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        RandomGrayscale(0.4),
        TrivialAugmentWide(),
        RandAugment(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_gpu_computes_the_same_without_counting_the_chosen_images(
    transform: BatchTransform, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos(40, dtype)
    alone = transform(images, torch.arange(40), make_draw(40, images))[0]
    with monkeypatch.context() as patch:
        patch.setattr(per_image, "DEVICES_THAT_COUNT", ())
        patch.setattr(boxes, "DENSE_SIDE", 1000)
        for name in ("nonzero", "item", "tolist", "__bool__"):  # those wait for a GPU
            patch.setattr(Tensor, name, None)
        together = transform(images, torch.arange(40), make_draw(40, images))[0]
    assert error(together, alone) < 0.01


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    state = torch.get_rng_state()
    first = RandAugment()(photos(8), torch.arange(8), make_draw(8))[0]
    torch.testing.assert_close(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(RandAugment()(photos(8), torch.arange(8), make_draw(8))[0], first)


def test_impossible_settings_are_refused() -> None:
    assert {*CHANGES} < {*OPERATIONS}
    with pytest.raises(DataError, match="Expected a magnitude below 31 for RandAugment, but got 31"):
        RandAugment(magnitude=31)
