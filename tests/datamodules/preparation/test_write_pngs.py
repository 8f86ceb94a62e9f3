import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import DataError
from datamodules.preparation.write_pngs import ImageBatch, convert, find_missing, list_converted, read_source

NAMES = ("cat", "dog")


def batch(subset: str = "train", first: int = 0, count: int = 6) -> ImageBatch:
    pixels = np.random.default_rng(first).integers(0, 256, (count, 5, 7, 3), np.uint8)
    return ImageBatch(subset, first, pixels, np.arange(count) % 2)


def test_files_are_named_by_label_and_index_in_class_folders(tmp_path: Path) -> None:
    source = batch(first=10_000)
    convert([source, batch("test")], tmp_path / "images", NAMES, {"name": "a test"})
    for i, (pixels, label) in enumerate(zip(source.pixels, source.labels, strict=True)):
        with Image.open(tmp_path / f"images/train/{NAMES[label]}/{label}_{10_000 + i}.png") as image:
            np.testing.assert_array_equal(np.array(image), pixels)
    assert list_converted(tmp_path / "images", "train") == [
        (f"images/train/{NAMES[i % 2]}/{i % 2}_{10_000 + i}.png", i % 2) for i in range(6)
    ]
    (tmp_path / "images/test/cat/._0_0.png").write_bytes(b"written by macOS")
    assert len(list_converted(tmp_path / "images", "test")) == 6
    assert read_source(tmp_path / "images", "test") == {"name": "a test"}


def test_an_interrupted_conversion_leaves_no_complete_subset(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[ImageBatch]:
        yield batch()
        raise KeyboardInterrupt

    images = tmp_path / "images"
    with pytest.raises(KeyboardInterrupt):
        convert(breaks_off(), images, NAMES, {})
    assert find_missing(images, ["train"]) == ["train"]
    convert([batch(count=4)], images, NAMES, {})
    assert find_missing(images, ["train"]) == []
    assert len(list((images / "train").rglob("*.png"))) == 4  # no file of the first attempt remains
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_folder_of_another_program_is_never_changed(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/mine.jpg").write_bytes(b"my photo")
    with pytest.raises(DataError, match=r"Expected no files in .*images/train, .* Move them away"):  # before converting
        find_missing(tmp_path / "images", ["train"])
    with pytest.raises(OSError, match="not empty"):
        convert([batch()], tmp_path / "images", NAMES, {})
    assert [path.name for path in (tmp_path / "images/train").iterdir()] == ["mine.jpg"]


def test_a_full_disk_leaves_no_complete_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: .*\.png") as error:
        convert([batch()], tmp_path / "images", NAMES, {})
    assert error.value.filename.endswith(".png")
    assert list(tmp_path.iterdir()) == []
