import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_image

from datamodules.convert import CHECKSUMS, ImageBatch, convert, encode_png, is_converted, list_converted

NAMES = ("cat", "dog")


def batch(subset: str = "train", first: int = 0, count: int = 6) -> ImageBatch:
    pixels = np.random.default_rng(first).integers(0, 256, (count, 5, 7, 3), np.uint8)
    return ImageBatch(subset, first, pixels, np.arange(count) % 2)


@pytest.mark.filterwarnings("ignore:The image decoding")  # torchvision's is deprecated, but a decoder all the same
@pytest.mark.parametrize("compression", [0, 1, 9])
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (5, 7), (300, 200)])
def test_every_decoder_gets_back_the_very_pixels(size: tuple[int, int], compression: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    content = encode_png(pixels, compression)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.array(image), pixels)
    decoded = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), pixels)


def test_a_stored_image_of_cifar_10_fits_a_block() -> None:
    assert len(encode_png(np.zeros((32, 32, 3), np.uint8))) < 4096


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


def test_what_breaks_off_leaves_nothing_that_counts_as_done(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[ImageBatch]:
        yield batch()
        raise KeyboardInterrupt

    images = tmp_path / "images"
    with pytest.raises(KeyboardInterrupt):
        convert(breaks_off(), images, NAMES, 12, {})
    assert not is_converted(images, "train")
    convert([batch(count=4)], images, NAMES, 4, {})
    assert is_converted(images, "train")
    assert len(list((images / "train").rglob("*.png"))) == 4  # none is left of the first attempt
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
