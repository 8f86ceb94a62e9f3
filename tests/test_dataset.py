from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from datamodules import DataError
from datamodules.dataset import ImageDataset, read_rgb


def test_item_is_transformed_image_and_label(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, label = ImageDataset(tmp_path, [("a.png", 7)], nn.Identity())[0]
    assert (image.dtype, label) == (torch.uint8, 7)
    np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
    flipped, _ = ImageDataset(tmp_path, [("a.png", 7)], lambda image: image.flip(2))[0]
    assert torch.equal(flipped, image.flip(2))


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png").tolist() == [[[9] * 3] * 2] * 2


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_damaged_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png is not a readable image"):
        read_rgb(tmp_path / "bad.png")


def test_truncated_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.png is not a readable image"):
        read_rgb(tmp_path / "cut.png")


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png is missing"):
        read_rgb(tmp_path / "gone.png")
