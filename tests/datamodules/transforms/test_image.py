import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.errors import DataError
from datamodules.transforms.image import ImageTransform, compose


class Data:
    """A stand-in for a data module."""

    def __init__(self, transforms: list[ImageTransform] | None = None) -> None:
        self.transforms = transforms


class Darken:
    def __init__(self, by: int = 2) -> None:
        self.by = by

    def __call__(self, image: Tensor) -> Tensor:
        return image // self.by


def invert(image: Tensor) -> Tensor:
    return 255 - image


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Data, "data", fail_untyped=False)  # as LightningCLI does
    return parser


@pytest.fixture
def image() -> Tensor:
    """Return random pixels, none of which is 0."""
    return torch.randint(1, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def parse(parser: ArgumentParser, entries: str) -> Namespace:
    """Parse lines of YAML, one list entry each; `v2.` stands for torchvision's and `my.` for this module's path."""
    lines = entries.replace("v2.", "torchvision.transforms.v2.").replace("my.", f"{__name__}.").strip().splitlines()
    return parser.parse_string("\n".join(["data:", "  transforms:", *(f"  {line}" for line in lines)]))


def run(parser: ArgumentParser, config: Namespace, image: Tensor) -> Tensor:
    torch.manual_seed(0)
    random.seed(0)
    return compose(parser.instantiate(config).data.transforms)(image)


def five(image: Tensor) -> Tensor:
    """Return the four corners and the centre, 28 x 28."""
    return torch.stack([image[:, y : y + 28, x : x + 28] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))])


FLOAT = "- {class_path: v2.ToDtype, init_args: {dtype: torch.float32, scale: true}}"
HORIZONTAL = "{class_path: v2.RandomHorizontalFlip, init_args: {p: 1.0}}"
VERTICAL = "{class_path: v2.RandomVerticalFlip, init_args: {p: 1.0}}"

# arguments of a class in v2, or entries; and a check of the result
CASES: dict[str, tuple[str, Callable[[Tensor, Tensor], bool]]] = {
    "CenterCrop": ("size: [24, 20]", lambda image, result: torch.equal(result, image[:, 4:28, 6:26])),
    "FiveCrop": ("size: 28", lambda image, result: torch.equal(result, five(image))),
    "TenCrop": ("size: 28", lambda image, result: torch.equal(result, torch.cat([five(image), five(image.flip(2))]))),
    "RandomRotation": ("degrees: [90, 90]", lambda image, result: torch.equal(result, image.rot90(1, (1, 2)))),
    "Normalize": (
        f"{FLOAT}\n- {{class_path: v2.Normalize, init_args: {{mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}}}",
        lambda image, result: torch.allclose(result * 0.25 + 0.5, image / 255, atol=1e-6),
    ),
    # v2.ToTensor warns that it is deprecated
    "ToTensor": ("- torchvision.transforms.ToTensor", lambda image, result: torch.allclose(result, image / 255)),
    "ToPILImage": ("mode: RGB", torch.equal),
    "Lambda": ("lambd: my.invert", lambda image, result: torch.equal(result, 255 - image)),
    "RandomChoice": (
        f"transforms: [{HORIZONTAL}, {VERTICAL}]",
        lambda image, result: torch.equal(result, image.flip(1)) ^ torch.equal(result, image.flip(2)),
    ),
    "RandomApply": (
        f"transforms: [{HORIZONTAL}, my.invert], p: 1.0",
        lambda image, result: torch.equal(result, 255 - image.flip(2)),
    ),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_transforms_work_from_yaml_and_from_the_saved_config(name: str, parser: ArgumentParser, image: Tensor) -> None:
    entries, is_true = CASES[name]
    if not entries.startswith("- "):
        entries = f"- {{class_path: v2.{name}, init_args: {{{entries}}}}}"
    config = parse(parser, entries)
    original = image.clone()
    result = run(parser, config, image)
    assert type(result) is Tensor
    assert result.dtype in (torch.uint8, torch.float32)
    assert is_true(original, result)
    saved = parser.parse_string(parser.dump(config, skip_unset=False))
    assert saved == config
    assert torch.equal(run(parser, saved, original), result)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("- v2.RandomCorp", "v2.RandomCorp"),
        ("- {class_path: v2.RandomCrop, init_args: {size: 32, paddng: 4}}", "'paddng' is not accepted"),
        ("- {class_path: v2.RandomRotation, init_args: {degrees: ten}}", "Not of type Number"),
        ("- {class_path: my.Darken, init_args: {by: much}}", "Expected a <class 'int'>. Got value: much"),
    ],
)
def test_a_mistake_is_an_error_of_the_parser(parser: ArgumentParser, entry: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse(parser, entry)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: np.flip(np.flip(image.permute(1, 2, 0).numpy()).copy()),  # with negative strides
        lambda image: Image.fromarray(image.permute(1, 2, 0).numpy()),
        v2.ToImage(),
        *(lambda image: image[:1], lambda image: image[0].numpy(), lambda image: Image.fromarray(image[0].numpy())),
    ],
)
def test_an_image_of_any_kind_becomes_a_tensor_of_three_channels(transform: ImageTransform, image: Tensor) -> None:
    image = image[:1].expand(3, 32, 32)
    result = compose([transform])(image)
    assert type(result) is Tensor
    assert torch.equal(result, image)


def test_transforms_after_five_crops_see_one_view_at_a_time(image: Tensor) -> None:
    seen = []
    result = compose([v2.FiveCrop(28), v1.ToTensor(), lambda view: seen.append(view.shape) or view])(image)
    assert seen == [(3, 28, 28)] * 5
    assert torch.allclose(result, five(image) / 255)
    assert compose([v2.FiveCrop(28), v2.TenCrop(20)])(image).shape == (50, 3, 20, 20)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [v2.Resize(40), v2.Normalize([0.5] * 3, [0.5] * 3)],
            r"Normalize failed on Tensor .* \(3, 40, 40\): Input",
        ),
        ([v1.ToPILImage(), v2.Lambda(invert)], r"Lambda failed on Image .*: unsupported operand"),
        ([lambda image: None], "Expected transforms that return .*, but got NoneType"),
        ([v2.FiveCrop(28), v2.Identity(), lambda view: view[0]], r"but got Tensor .*uint8 \(28, 28\)"),
        ([lambda image: image.long()], r"but got Tensor .*int64 \(3, 32, 32\)"),
        ([lambda image: image.numpy()], r"but got Image .*uint8 \(32, 3, 32\)"),
        ([lambda image: Image.new("I", (32, 32))], r"but got Image .*int32 \(1, 32, 32\)"),
    ],
)
def test_an_error_names_the_transform_or_what_it_returned(transforms: list[Any], message: str, image: Tensor) -> None:
    with pytest.raises(DataError, match=message) as caught:
        compose(transforms)(image)
    assert "\n" not in str(caught.value)
