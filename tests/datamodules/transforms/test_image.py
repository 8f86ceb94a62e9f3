import pickle
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
from datamodules.transforms.image import ImageTransform, ZCAWhitening, compose


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


def doubling() -> Tensor:
    return 2 * torch.eye(3 * 32 * 32)


def middle() -> Tensor:
    return torch.full((3 * 32 * 32,), 0.5)


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


def is_window(image: Tensor, result: Tensor) -> bool:
    """Return whether a result is a square part of the image."""
    size = result.shape[-1]
    windows = image.unfold(1, size, 1).unfold(2, size, 1)
    return bool((windows == result[:, None, None]).flatten(3).all(3).all(0).any())


def is_grey(image: Tensor, result: Tensor) -> bool:
    return result.shape == image.shape and torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])


def has_box_of_zeros(image: Tensor, result: Tensor) -> bool:
    erased = (result == 0).all(0)
    box = erased.any(1)[:, None] & erased.any(0)
    return bool(erased.any()) and torch.equal(erased, box) and torch.equal(result, image * ~box)


def five(image: Tensor) -> Tensor:
    """Return the four corners and the centre, 28 x 28."""
    return torch.stack([image[:, y : y + 28, x : x + 28] for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))])


FLOAT = "- {class_path: v2.ToDtype, init_args: {dtype: torch.float32, scale: true}}"
HORIZONTAL = "{class_path: v2.RandomHorizontalFlip, init_args: {p: 1.0}}"
VERTICAL = "{class_path: v2.RandomVerticalFlip, init_args: {p: 1.0}}"

# Twenty-two common transforms and RandomErasing: arguments of a class in v2, or entries; and a check of the result
CASES: dict[str, tuple[str, Callable[[Tensor, Tensor], bool]]] = {
    "RandomCrop": ("size: 20", lambda image, result: result.shape[-1] == 20 and is_window(image, result)),
    "CenterCrop": ("size: [24, 20]", lambda image, result: torch.equal(result, image[:, 4:28, 6:26])),
    "RandomResizedCrop": (
        "size: 16, scale: [0.25, 0.25], ratio: [1.0, 1.0]",
        lambda image, result: result.shape[-1] == 16 and is_window(image, result),
    ),
    "FiveCrop": ("size: 28", lambda image, result: torch.equal(result, five(image))),
    "TenCrop": (
        "size: 28",
        lambda image, result: torch.equal(result, torch.cat([five(image), five(image.flip(2))])),
    ),
    "RandomHorizontalFlip": ("p: 1.0", lambda image, result: torch.equal(result, image.flip(2))),
    "RandomVerticalFlip": ("p: 1.0", lambda image, result: torch.equal(result, image.flip(1))),
    "RandomRotation": ("degrees: [90, 90]", lambda image, result: torch.equal(result, image.rot90(1, (1, 2)))),
    "Resize": (
        "size: 64, interpolation: nearest",
        lambda image, result: torch.equal(result, image.repeat_interleave(2, 1).repeat_interleave(2, 2)),
    ),
    "Normalize": (
        f"{FLOAT}\n- {{class_path: v2.Normalize, init_args: {{mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3]}}}}",
        lambda image, result: torch.allclose(
            result * torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1) + torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1),
            image / 255,
            atol=1e-6,
        ),
    ),
    # v2.ToTensor warns that it is deprecated
    "ToTensor": ("- torchvision.transforms.ToTensor", lambda image, result: torch.allclose(result, image / 255)),
    "Pad": (
        "padding: 2, fill: 7",
        lambda image, result: (
            torch.equal(result[:, 2:34, 2:34], image) and result.sum() == image.sum() + 7 * 3 * (36**2 - 32**2)
        ),
    ),
    "ColorJitter": (
        "brightness: [0.5, 0.5]",
        lambda image, result: torch.allclose(result.float(), image / 2, atol=1),
    ),
    "Grayscale": ("num_output_channels: 1", is_grey),
    "LinearTransformation": (
        f"{FLOAT}\n- {{class_path: v2.LinearTransformation, init_args: "
        "{transformation_matrix: {class_path: my.doubling}, mean_vector: {class_path: my.middle}}}",
        lambda image, result: torch.allclose(result, 2 * (image / 255 - 0.5), atol=1e-6),
    ),
    "RandomAffine": (
        "degrees: 0, scale: [0.5, 0.5], fill: 0",
        lambda image, result: (result[:, 8:24, 8:24] > 0).all() and result.count_nonzero() == 3 * 16**2,
    ),
    "RandomGrayscale": ("p: 1.0", is_grey),
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
    "RandomOrder": (
        "transforms: [my.Darken, my.invert]",
        lambda image, result: torch.equal(result, 255 - image // 2) ^ torch.equal(result, (255 - image) // 2),
    ),
    "RandomErasing": ("p: 1.0", has_box_of_zeros),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_every_transform_of_the_course_works_from_yaml_and_from_the_saved_config(
    name: str, parser: ArgumentParser, image: Tensor
) -> None:
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
        ([v2.Resize(40), v2.Normalize([0.5] * 3, [0.5] * 3)], r"Normalize failed on Tensor uint8 \(3, 40, 40\): Input"),
        ([v1.ToPILImage(), v2.Lambda(invert)], r"Lambda failed on PIL image RGB \(32, 32\): unsupported operand"),
        ([lambda image: None], "Expected transforms that return .*, but got NoneType"),
        ([v2.FiveCrop(28), v2.Identity(), lambda view: view[0]], r"but got Tensor uint8 \(28, 28\)"),
        ([lambda image: image.long()], r"but got Tensor int64 \(3, 32, 32\)"),
        ([lambda image: image.numpy()], r"but got ndarray uint8 \(3, 32, 32\)"),
        ([lambda image: Image.new("I", (32, 32))], r"but got PIL image I \(32, 32\)"),
    ],
)
def test_an_error_names_the_transform_or_what_it_returned(transforms: list[Any], message: str, image: Tensor) -> None:
    with pytest.raises(DataError, match=message) as caught:
        compose(transforms)(image)
    assert "\n" not in str(caught.value)


def correlated(count: int) -> Tensor:
    """Return images (N, 3, 6, 6) with correlated neighbouring pixels and colours."""
    noise = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool3d(noise[:, None], (2, 3, 3), stride=1)[:, 0]
    return (smooth * 60 + 128).clamp(0, 255).byte()


@pytest.mark.parametrize("count", [2000, 60])  # more and fewer images than pixels
def test_whitening_is_the_inverse_root_of_the_covariance(count: int) -> None:
    images = correlated(count)
    whitening = ZCAWhitening(epsilon=0.01)
    whitening.fit(images)
    pixels = images.flatten(1).double() / 255
    covariance = pixels.T.cov(correction=0) + 0.01 * torch.eye(108)
    impulses = torch.eye(108).view(108, 3, 6, 6)
    offset = whitening(torch.zeros(3, 6, 6))
    matrix = torch.stack([whitening(impulse) - offset for impulse in impulses]).flatten(1).double()
    assert torch.allclose(matrix @ covariance @ matrix, torch.eye(108, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(matrix, matrix.T, atol=1e-5)


def test_whitening_works_from_yaml_in_another_process_and_only_once_fitted(parser: ArgumentParser) -> None:
    config = parse(parser, "- {class_path: datamodules.transforms.image.ZCAWhitening, init_args: {num_images: 50}}")
    (whitening,) = transforms = parser.instantiate(config).data.transforms
    image = correlated(1)[0]
    assert whitening.num_images == 50
    with pytest.raises(DataError, match=r"ZCAWhitening failed on .*: Expected .* fitted"):
        compose(transforms)(image)
    whitening.fit(correlated(50))
    sent = pickle.loads(pickle.dumps(compose(transforms)))
    assert torch.equal(sent(image), compose(transforms)(image))
    assert torch.allclose(sent(image), whitening(image / 255), atol=1e-5)


@pytest.mark.parametrize("images", [torch.rand(4, 3, 6, 6), correlated(1), correlated(4)[0]])
def test_whitening_needs_several_raw_images(images: Tensor) -> None:
    with pytest.raises(DataError, match="Expected at least two training images"):
        ZCAWhitening().fit(images)
