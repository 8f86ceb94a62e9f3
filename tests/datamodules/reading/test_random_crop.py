from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from sklearn.datasets import load_sample_images
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.errors import ImageError
from datamodules.reading import random_crop
from datamodules.reading.decode import read_rgb
from datamodules.reading.random_crop import can_reduce, read_crop, read_pixels
from datamodules.transforms.image import seeded

SIZE = 32


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Return a photo of 637x423 pixels, and the same with noise as of a dark scene."""
    photo = Image.fromarray(load_sample_images().images[0]).crop((0, 0, 637, 423))
    noise = np.random.default_rng(0).normal(0, 20, (423, 637, 3))
    return [photo, Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))]


def both(path: Path, crop: torch.nn.Module, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a crop of a file, and that of its pixels as torchvision crops them, with the same random numbers."""
    with seeded(seed):
        fast = read_crop(str(path), crop)
        after = torch.rand(())
    with seeded(seed):
        usual = crop(torch.from_numpy(read_rgb(path)).permute(2, 0, 1))
        assert torch.rand(()) == after
    return fast, usual


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_crops_of_a_large_photo_are_those_of_torchvision(
    photos: list[Image.Image], tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = []
    draft = JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda image, *args: reduced.append(args) or draft(image, *args))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.jpg", quality=85, exif=exif)
        for seed, crop in enumerate([v2.RandomResizedCrop(SIZE), v1.RandomResizedCrop((SIZE, SIZE + 9))] * 4):
            fast, usual = both(tmp_path / f"{number}.jpg", crop, seed)
            assert fast.shape == usual.shape
            assert (fast.int() - usual.int()).abs().float().mean() < 2
    assert len(reduced) > 8


@pytest.mark.parametrize("name", ["small.jpg", "grey.jpg", "cmyk.jpg", "photo.png", "photo.webp", "turned.jpg"])
def test_other_crops_are_equal_to_those_of_torchvision(
    photos: list[Image.Image], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = {"grey.jpg": "L", "cmyk.jpg": "CMYK"}.get(name, "RGB")
    photo = photos[0].convert(mode).resize((70, 50))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if name == "turned.jpg" else 1
    photo.save(tmp_path / name, exif=exif)
    pixels = torch.from_numpy(read_rgb(tmp_path / name)).permute(2, 0, 1)
    assert torch.equal(read_pixels(str(tmp_path / name)), pixels)
    for seed in range(5):
        assert torch.equal(*both(tmp_path / name, v2.RandomResizedCrop(SIZE), seed))
    monkeypatch.setattr(random_crop, "decode_jpeg", None)  # as a later torchvision
    assert torch.equal(read_pixels(str(tmp_path / name)), pixels)


def test_files_that_cannot_be_read_are_named(photos: list[Image.Image], tmp_path: Path) -> None:
    photos[0].save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    for name, part in (("empty.jpg", b""), ("header.jpg", content[:700]), ("half.jpg", content[: len(content) // 2])):
        (tmp_path / name).write_bytes(part)
    for name in ("empty.jpg", "header.jpg", "half.jpg", "missing.jpg"):
        for crop in (v2.RandomResizedCrop(SIZE), v2.RandomResizedCrop(300)):
            with pytest.raises(ImageError, match=name):
                read_crop(str(tmp_path / name), crop)


def test_only_the_usual_crop_of_torchvision_is_recognised() -> None:
    class Own(v2.RandomResizedCrop):
        pass

    assert can_reduce(v2.RandomResizedCrop(8))
    assert can_reduce(v1.RandomResizedCrop(8))
    assert can_reduce(v2.RandomResizedCrop(8, interpolation="bilinear"))
    others = [Own(8), v2.RandomCrop(8), v2.RandomResizedCrop(8, antialias=False), None]
    others.append(v2.RandomResizedCrop(8, interpolation=v2.InterpolationMode.BICUBIC))
    assert not any(map(can_reduce, others))
