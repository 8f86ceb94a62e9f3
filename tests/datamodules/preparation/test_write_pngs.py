import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import DataError
from datamodules.preparation.write_pngs import CHECKSUMS, ImageBatch, convert, find_missing, list_converted, verify

NAMES = ("cat", "dog")


def batch(subset: str = "train", first: int = 0, count: int = 6) -> ImageBatch:
    pixels = np.random.default_rng(first).integers(0, 256, (count, 5, 7, 3), np.uint8)
    return ImageBatch(subset, first, pixels, np.arange(count) % 2)


def test_files_are_named_by_label_and_index_in_class_folders(tmp_path: Path) -> None:
    source = batch(first=10_000)
    convert([source], tmp_path / "images", NAMES, 6, {"name": "test"})
    for i, (pixels, label) in enumerate(zip(source.pixels, source.labels, strict=True)):
        with Image.open(tmp_path / f"images/train/{NAMES[label]}/{label}_{10_000 + i}.png") as image:
            np.testing.assert_array_equal(np.array(image), pixels)
    assert list_converted(tmp_path / "images", "train") == [
        (f"images/train/{NAMES[i % 2]}/{i % 2}_{10_000 + i}.png", i % 2) for i in range(6)
    ]


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    convert([batch(), batch("test")], tmp_path / "images", NAMES, 12, {})
    for subset in ("train", "test"):
        folder = tmp_path / "images" / subset
        lines = (folder / CHECKSUMS).read_text().splitlines()
        assert len(lines) == 6
        for line in lines:
            digest, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_an_interrupted_conversion_leaves_no_complete_subset(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[ImageBatch]:
        yield batch()
        raise KeyboardInterrupt

    images = tmp_path / "images"
    with pytest.raises(KeyboardInterrupt):
        convert(breaks_off(), images, NAMES, 12, {})
    assert find_missing(images, ["train"]) == ["train"]
    convert([batch(count=4)], images, NAMES, 4, {})
    assert find_missing(images, ["train"]) == []
    assert len(list((images / "train").rglob("*.png"))) == 4  # no file of the first attempt remains
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_compressed_files_hold_the_same_pixels(tmp_path: Path) -> None:
    flat = ImageBatch("train", 0, np.full((2, 32, 32, 3), 7, np.uint8), np.array([0, 1]))
    convert([flat], tmp_path / "images", NAMES, 2, {}, compression=9)
    for path in (tmp_path / "images").rglob("*.png"):
        assert path.stat().st_size < 300
        with Image.open(path) as image:
            assert (np.array(image) == 7).all()


def test_verify_names_every_changed_file(tmp_path: Path) -> None:
    images = tmp_path / "images"
    convert([batch()], images, NAMES, 6, {})
    verify(images, "train")
    files = sorted(images.rglob("*.png"))
    files[0].unlink()
    content = bytearray(files[1].read_bytes())
    content[60] ^= 1
    files[1].write_bytes(content)
    (images / "train/cat/9_9.png").write_bytes(b"")
    with pytest.raises(DataError, match="but 3 are not: ") as error:
        verify(images, "train")
    for problem in (f"cat/{files[0].name} is missing", f"cat/{files[1].name} was changed", "cat/9_9.png is not in SHA"):
        assert problem in str(error.value)


def test_a_folder_of_another_program_is_never_changed(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/mine.jpg").write_bytes(b"my photo")
    with pytest.raises(DataError, match=r"images/train.*not written by this project.*FolderDataModule"):
        find_missing(tmp_path / "images", ["train"])
    with pytest.raises(OSError, match="not empty"):
        convert([batch()], tmp_path / "images", NAMES, 6, {})
    assert (tmp_path / "images/train/mine.jpg").read_bytes() == b"my photo"


def test_a_full_disk_leaves_no_complete_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*\.png") as error:
            convert([batch()], tmp_path / "images", NAMES, 6, {})
    assert error.value.filename.endswith(".png")
    assert find_missing(tmp_path / "images", ["train"]) == ["train"]
    convert([batch()], tmp_path / "images", NAMES, 6, {})
    verify(tmp_path / "images", "train")
