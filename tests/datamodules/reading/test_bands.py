import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import DataError
from datamodules.reading.decode import read_rgb
from datamodules.reading.read_images import read_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 12), np.uint8)  # channels, height, width


def write(path: Path, pixels: np.ndarray, axes: str) -> Path:
    """Write channels in planes ("planes"), interleaved ("interleaved") or in pages ("pages")."""
    tifffile = pytest.importorskip("tifffile")
    layout = {"planes": "separate", "interleaved": "contig"}.get(axes)
    stored = np.moveaxis(pixels, 0, -1) if axes == "interleaved" else pixels
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=layout)
    return path


@pytest.mark.parametrize("axes", ["planes", "interleaved", "pages"])
@pytest.mark.parametrize("channels", [4, 6])
def test_all_channels_of_a_tiff_are_read(tmp_path: Path, axes: str, channels: int) -> None:
    expected = np.moveaxis(PIXELS[:channels], 0, -1)
    path = write(tmp_path / "a.tif", PIXELS[:channels], axes)
    np.testing.assert_array_equal(read_rgb(path, channels=channels), expected)
    deep = write(tmp_path / "deep.tif", PIXELS[:channels].astype(np.uint16) * 257, axes)
    np.testing.assert_array_equal(read_rgb(deep, channels=channels), expected)
    assert read_rgb(path, 4, "crop", channels=channels).shape == (4, 4, channels)


def test_channels_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", PIXELS, "interleaved")
    with pytest.raises(DataError, match=r"expected 4 channels, but got 6: set --data\.channels to their number"):
        read_rgb(path, channels=4)
    with pytest.raises(DataError, match=r"damaged, or a TIFF of several channels: set --data\.channels"):
        read_rgb(path)
    with pytest.raises(DataError, match="expected 8 or 16 bits per channel, but got float32"):
        read_rgb(write(tmp_path / "b.tif", PIXELS.astype(np.float32), "planes"), channels=6)


def test_too_many_pixels_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="576 values exceed the limit of 200"):
        read_rgb(write(tmp_path / "a.tif", PIXELS, "planes"), channels=6)


def test_without_tifffile_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"the package tifffile .* Install it: python -m pip install tifffile$"):
        read_images([str(tmp_path / "a.tif")], 8, "crop", errors={}, channels=5)  # not counted as a damaged file


@pytest.mark.skipif(importlib.util.find_spec("tifffile") is None, reason="needs tifffile")
def test_damage_is_one_line(tmp_path: Path) -> None:
    content = write(tmp_path / "a.tif", PIXELS, "planes").read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(4, len(content), 50).tolist():
        damaged = bytearray(content[:length])
        damaged[rng.integers(4, length)] ^= 255
        (tmp_path / "b.tif").write_bytes(damaged)
        with pytest.raises(DataError) as error:
            read_rgb(tmp_path / "b.tif", channels=6)
        assert str(error.value).isprintable()
