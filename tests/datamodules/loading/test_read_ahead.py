import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.loading.dataset import ImageDataset, map_pixels
from datamodules.loading.loader import ImageLoader

COUNT, BATCH = 12, 4


def loader(folder: Path, side: int) -> ImageLoader:
    """Return a loader of cached images in shuffled order."""
    cache = folder / "pixels.npy"
    np.save(cache, np.random.default_rng(0).integers(0, 256, (COUNT, 3, side, side), np.uint8))
    entries, rows = [(f"{i}.png", i) for i in range(COUNT)], torch.arange(COUNT).flip(0)
    dataset = ImageDataset(Path(), entries, side, pixels=map_pixels(cache), rows=rows, cache=cache)
    return ImageLoader(dataset, BATCH, lambda images, targets, _: (images, targets), torch.device("cpu"), shuffle=True)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that receives the bytes of each range of a file that the system is asked to read."""
    ranges = []

    def record(file: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        ranges.append(os.pread(file, length, offset))

    monkeypatch.setattr(os, "posix_fadvise", record, raising=False)  # macOS and Windows lack it
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    return ranges


def test_the_pixels_of_the_next_batch_are_requested_before_a_batch_is_used(
    tmp_path: Path, requested: list[bytes]
) -> None:
    batches = iter(loader(tmp_path, 80))
    next(batches)
    before = set(requested)
    for images, _ in batches:
        assert {image.numpy().tobytes() for image in images} <= before
        before = set(requested)
    assert len(before) == COUNT


def test_small_images_are_not_requested(tmp_path: Path, requested: list[bytes]) -> None:
    assert sum(len(images) for images, _ in loader(tmp_path, 32)) == COUNT
    assert requested == []


def test_images_are_loaded_from_a_deleted_cache_and_without_the_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = loader(tmp_path, 80)
    first = torch.cat([images for images, _ in batches])
    (tmp_path / "pixels.npy").unlink()
    assert torch.equal(torch.cat([images for images, _ in batches]), first)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert torch.equal(torch.cat([images for images, _ in loader(tmp_path, 80)]), first)
