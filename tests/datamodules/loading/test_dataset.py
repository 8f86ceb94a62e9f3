import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError
from datamodules.errors import ImageError
from datamodules.loading.dataset import ImageDataset, map_pixels
from datamodules.reading.png import encode_pngs
from datamodules.reading.read_images import read_images


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Return a folder of 0.png to 5.png, written by this project, and their pixels."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    for i, content in enumerate(encode_pngs(images)):
        (tmp_path / f"{i}.png").write_bytes(content)
    return tmp_path, images.transpose(0, 3, 1, 2)


def test_files_mapped_pixels_and_pixels_on_the_device_give_the_same_batch(files: tuple[Path, np.ndarray]) -> None:
    root, images = files
    entries = [(f"{i}.png", i % 2) for i in (5, 0, 3, 2)]
    from_files = ImageDataset(root, entries, 8)
    mapped, held = (
        ImageDataset(root, entries, 8, pixels=torch.from_numpy(images), rows=torch.tensor([5, 0, 3, 2]))
        for _ in range(2)
    )
    held.to_device(torch.device("cpu"))
    for dataset in (from_files, mapped, held):
        got, targets = dataset.__getitems__((0, torch.tensor([2, 0, 1])))
        np.testing.assert_array_equal(got.numpy(), images[[3, 5, 0]])
        assert targets.tolist() == [1, 1, 0]
        image, label = dataset[-1]
        assert (image.tolist(), label) == (images[2].tolist(), 0)
        assert [label for _, label in dataset] == [1, 0, 1, 0]


def test_mapped_pixels_are_mapped_again_by_a_spawned_worker(files: tuple[Path, np.ndarray]) -> None:
    root, images = files
    np.save(root / "pixels.npy", images)
    cache = root / "pixels.npy"
    dataset = ImageDataset(root, [(f"{i}.png", i) for i in range(6)], 8, pixels=map_pixels(cache), cache=cache)
    content = pickle.dumps(dataset)
    assert images.tobytes() not in content
    np.testing.assert_array_equal(pickle.loads(content).load(torch.arange(6))[0], images)


def test_an_image_of_another_size_is_an_error_or_resized(files: tuple[Path, np.ndarray]) -> None:
    root, images = files
    Image.fromarray(np.full((20, 10, 3), 9, np.uint8)).save(root / "large.png")  # by another program
    names = [str(root / name) for name in ("0.png", "large.png")]
    with pytest.raises(DataError, match=r"images of 8x8 pixels.*large\.png has 10x20\..*--data\.image_size"):
        read_images(names, 8, None)
    first, second = read_images(names, 8, "crop")
    np.testing.assert_array_equal(first, images[0])
    assert (second == 9).all()


@pytest.mark.parametrize("content", [b"no image", bytes(68)])  # 68 bytes are a stored PNG of 0 x 0 pixels
def test_an_unreadable_file_is_an_error_or_reported(files: tuple[Path, np.ndarray], content: bytes) -> None:
    root, images = files
    (root / "1.png").write_bytes(content)
    names = [str(root / f"{i}.png") for i in range(3)]
    for some in (names, names[1:2]):
        with pytest.raises(DataError, match=r"1\.png"):
            read_images(some, 8, None)
    errors: dict[int, ImageError] = {}
    pixels = read_images(names, 8, None, errors)
    assert list(errors) == [1]
    np.testing.assert_array_equal(pixels[[0, 2]], images[[0, 2]])
    assert not pixels[1].any()


def test_files_that_cannot_be_read_are_left_out_of_a_batch(files: tuple[Path, np.ndarray]) -> None:
    root, images = files
    names = [str(root / name) for name in ("gone.png", "0.png", "2.png", "empty.png")]
    (root / "empty.png").touch()
    dataset = ImageDataset.of_files(names, 8, transform=lambda image: image.float())
    got, positions = dataset.__getitems__((0, torch.arange(4)))
    assert positions.tolist() == [1, 2]
    np.testing.assert_array_equal(got.numpy(), images[[0, 2]])
    got, positions = dataset.__getitems__((0, torch.tensor([0, 3])))
    assert len(got) == len(positions) == 0


def test_transforms_depend_only_on_the_seed_of_the_batch(files: tuple[Path, np.ndarray]) -> None:
    root, _ = files

    def draw() -> float:
        return random.random() + np.random.rand() + torch.rand(()).item()

    dataset = ImageDataset(root, [(f"{i}.png", 0) for i in range(6)], 8, transform=lambda image: image + draw())
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    first = dataset.__getitems__((2**62, torch.arange(6)))[0]
    drawn = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    assert draw() == drawn, "the random states are as they were"
    assert torch.equal(dataset.__getitems__((2**62, torch.arange(6)))[0], first)
    assert not torch.equal(dataset.__getitems__((2, torch.arange(6)))[0], first)
