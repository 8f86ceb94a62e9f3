import os
import runpy
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageFile
from torchvision.transforms import functional

from datamodules.errors import DataError
from datamodules.reading import decode
from datamodules.reading.decode import Resize, read_rgb

RESIZES = get_args(Resize)
RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # every 8-bit level, as 16 bits
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
CORNERS = np.zeros((16, 24, 3), np.uint8)  # a different colour in three of the corners
CORNERS[:8, :8], CORNERS[:8, 16:], CORNERS[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
UPRIGHT = {  # orientation -> how stored pixels are turned upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90,
}


def fit(pixels: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """Resize decoded pixels as ``read_rgb`` does with a size."""
    return np.array(decode._fit(Image.fromarray(pixels), (0, 0, pixels.shape[1], pixels.shape[0]), size, resize))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    """Return an image of smooth shapes, edges and some noise."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    waves = [np.sin(9 * x + 4 * y), np.sin(7 * y * x), np.where((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.1, 1, -1)]
    return (120 + 100 * np.stack(waves, -1) + noise(height, width, 1) / 16).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, pixels: np.ndarray, colour: int, *chunks: bytes) -> Path:
    """Write a PNG of 16-bit pixels, which Pillow supports only in some modes; colour type 0 is grey, 2 is RGB."""
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))
    middle = b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + middle)
    return path


def write_tiff(path: Path, size: tuple[int, int], bits: int, photometric: int, data: bytes) -> Path:
    """Write an uncompressed grey TIFF of a type that Pillow can read but not write."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: size[1]}
    tags[279] = len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


def assert_near(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert (got.dtype, got.shape) == (np.uint8, expected.shape)
    assert np.abs(got - expected.astype(float)).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".tga", ".webp", ".jp2", ".pcx", ".sgi"])
def test_lossless_formats_give_back_the_very_pixels(tmp_path: Path, suffix: str) -> None:
    pixels = noise(9, 13, 3)
    options = {"lossless": True} if suffix == ".webp" else {}
    got = read_rgb(save(tmp_path / f"a{suffix}", pixels, **options))
    np.testing.assert_array_equal(got, pixels)
    assert got.flags.writeable  # torch.from_numpy warns about read-only arrays


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparent_pixels_are_laid_over_white(tmp_path: Path, suffix: str) -> None:
    pixels = noise(16, 16, 4)
    pixels[:2, :, 3], pixels[2:4, :, 3] = 0, 255
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    expected = over_white(pixels[..., :3], pixels[..., 3])
    assert_near(read_rgb(save(tmp_path / f"a{suffix}", pixels, **options)), expected, 1)


def test_transparent_level_becomes_white(tmp_path: Path) -> None:
    grey = read_rgb(save(tmp_path / "grey.png", LEVELS, transparency=7))
    np.testing.assert_array_equal(grey[..., 0], np.where(LEVELS == 7, 255, LEVELS))
    rgb = read_rgb(save(tmp_path / "rgb.png", CORNERS, transparency=(0, 255, 0)))
    np.testing.assert_array_equal(rgb, np.where((CORNERS == (0, 255, 0)).all(-1, keepdims=True), 255, CORNERS))
    palette = Image.fromarray(CORNERS).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((20, 0)))
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), rgb)
    deep = read_rgb(write_png(tmp_path / "deep.png", RAMP, 0, chunk(b"tRNS", struct.pack(">H", 7 * 257))))
    np.testing.assert_array_equal(deep[..., 0], np.where(LEVELS == 7, 255, LEVELS))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, suffix: str) -> None:
    got = read_rgb(save(tmp_path / f"a{suffix}", RAMP))
    np.testing.assert_array_equal(got, np.stack([LEVELS] * 3, -1))
    between = np.array([[0, 128, 129, 65535 - 129, 65535 - 128, 65535]], np.uint16)
    if suffix != ".jp2":
        assert read_rgb(save(tmp_path / f"b{suffix}", between))[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_tiff_of_12_bits_is_scaled_to_8(tmp_path: Path) -> None:
    data = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00])  # 000 fff 800 000
    assert read_rgb(write_tiff(tmp_path / "a.tif", (4, 1), 12, 1, data))[0, :, 0].tolist() == [0, 255, 128, 0]


def test_tiff_whose_zero_is_white_is_inverted(tmp_path: Path) -> None:
    deep = read_rgb(write_tiff(tmp_path / "a.tif", (16, 16), 16, 0, RAMP.tobytes()))
    np.testing.assert_array_equal(deep[..., 0], 255 - LEVELS)
    np.testing.assert_array_equal(read_rgb(write_tiff(tmp_path / "b.tif", (16, 16), 8, 0, LEVELS.tobytes())), deep)


@pytest.mark.parametrize(("values", "got"), [(np.float32([[0, 1]]), "floats"), (np.int32([[0, 255]]), "32 bits")])
def test_floats_and_32_bits_are_refused(tmp_path: Path, values: np.ndarray, got: str) -> None:
    with pytest.raises(DataError, match=rf"a\.tif is not .*expected 8 or 16 bits per channel, but got {got}: save it"):
        read_rgb(save(tmp_path / "a.tif", values))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    for name in ("a.png", "a.tif", "a.jpg"):
        options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
        path = save(tmp_path / name, CORNERS, exif=exif(orientation), **options)
        assert_near(read_rgb(path), UPRIGHT[orientation](CORNERS), 3 if name == "a.jpg" else 0)
    late = save(tmp_path / "late.png", CORNERS)  # PNG may store EXIF after the pixels
    content = late.read_bytes()
    late.write_bytes(content[:-12] + chunk(b"eXIf", exif(orientation).tobytes()[6:]) + content[-12:])
    np.testing.assert_array_equal(read_rgb(late), UPRIGHT[orientation](CORNERS))


@pytest.mark.parametrize("damage", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03", b""])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # pytest's filters take precedence over those of decode.py
def test_damaged_exif_is_no_obstacle(tmp_path: Path, suffix: str, damage: bytes) -> None:
    path = save(tmp_path / f"a{suffix}", CORNERS, exif=b"Exif\0\0" + damage, quality=100)
    assert np.abs(read_rgb(path) - CORNERS.astype(float)).mean() < 30


def transparent(alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([CORNERS, np.full((16, 24), alpha, np.uint8)]))


def write_four_channels(path: Path) -> None:
    """Write an uncompressed TIFF with a channel beyond red, green and blue whose meaning is not specified."""
    pixels, size = noise(16, 16, 4).tobytes(), 8 + 2 + 10 * 12 + 4
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 4, size), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, size + 8)]
    tags += [(277, 3, 1, 4), (278, 3, 1, 16), (279, 4, 1, len(pixels)), (338, 3, 1, 0)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + struct.pack("<4H", *[8] * 4) + pixels)


def save_frames(path: Path) -> None:
    Image.fromarray(CORNERS).save(path, save_all=True, append_images=[Image.fromarray(CORNERS[::-1].copy())])


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("a.png", lambda path: transparent(128).save(path), ["alpha"]),
        ("a.png", lambda path: transparent(128).convert("LA").save(path), ["alpha"]),
        ("a.png", lambda path: Image.fromarray(CORNERS).quantize(4).save(path, transparency=0), ["alpha"]),
        ("a.png", lambda path: transparent(255).save(path), []),  # opaque: nothing is lost
        ("a.tif", write_four_channels, ["channels"]),
        ("a.gif", save_frames, ["frames"]),
        ("a.tif", save_frames, ["frames"]),
        ("a.mpo", save_frames, []),  # as from phones: the second frame is a preview
        ("a.jpg", lambda path: save(path, CORNERS, "CMYK"), []),
        ("a.bmp", lambda path: save(path, CORNERS), []),
    ],
)
def test_what_decoding_loses_is_reported(tmp_path: Path, name: str, write: Any, expected: list[str]) -> None:
    write(tmp_path / name)
    for size in (None, 8):
        losses: list[str] = []
        read_rgb(tmp_path / name, size, losses=losses)
        assert losses == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_any_image_is_converted_to_the_channels_that_are_asked_for(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    transparent(128).convert(mode).save(path)
    rgb = read_rgb(path)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(read_rgb(path, channels=1)[..., 0], grey)
    assert read_rgb(path, 8, "pad", channels=1).shape == (8, 8, 1)
    if path.suffix == ".png":  # a TIFF is not converted to more channels
        for channels in (2, 4):
            pixels = read_rgb(path, channels=channels)
            assert pixels.shape == (16, 24, channels)
            assert set(np.unique(pixels[..., -1])) == ({128} if mode in ("LA", "P", "RGBA") else {255})


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_that_is_kept_is_not_reported(tmp_path: Path, channels: int) -> None:
    transparent(128).save(tmp_path / "a.png")
    losses: list[str] = []
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", None, "crop", losses, channels)[..., -1], 128)
    assert losses == []
    with pytest.raises(DataError, match=r"a\.png is not .*expected a TIFF of 6 channels, but got PNG"):
        read_rgb(tmp_path / "a.png", channels=6)


def test_missing_file_is_named(tmp_path: Path) -> None:
    message = r"a\.png is missing\. Restore it, or remove its line from the index file\."
    with pytest.raises(DataError, match=message):
        read_rgb(tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=message):
        read_rgb(tmp_path / "file" / "a.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty: 0 bytes"),
        (b"no image", "damaged, or not in an image format that Pillow can read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "damaged, or not in an image format"),
        (b"P5\n2 2\n\x01\n", ""),
        (None, "Is a directory"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png is not a readable image \({reason}.*\)\. Replace it, or") as caught:
        read_rgb(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".jp2"])
def test_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    path = save(tmp_path / f"a{suffix}", noise(64, 64, 3))
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"a\.\w+ is not a readable image"):
            read_rgb(path)
        with pytest.raises(DataError, match=r"a\.\w+ is not a readable image"):
            read_rgb(path, 8, "crop")


def test_decompression_bomb_is_named(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"a\.png is not a readable image \(Image size \(400000000 pixels\) exceeds"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a b.png", "ü 😀 #%$'.png", "line\nbreak.png", os.fsdecode(b"\xff\xfe.png")])
def test_file_names_may_hold_any_characters(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match="is missing") as caught:
        read_rgb(path)
    assert str(caught.value).isprintable()
    np.testing.assert_array_equal(read_rgb(save(path, CORNERS)), CORNERS)


def test_damage_of_any_kind_gives_pixels_or_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # damaged sizes take seconds otherwise
    paths = []
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        for suffix in (".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"):
            try:
                image = Image.fromarray(noise(11, 17, 3)).convert(mode)
                image.save(tmp_path / f"{mode}{suffix}", **({} if suffix == ".gif" else {"exif": exif(6)}))
            except (OSError, ValueError):  # the format does not support this mode
                (tmp_path / f"{mode}{suffix}").unlink(missing_ok=True)
            else:
                paths.append(tmp_path / f"{mode}{suffix}")
    assert len(paths) > 20
    rng = np.random.default_rng(0)
    read, messages = 0, []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        module = runpy.run_path(decode.__file__)
        for turn in range(600):
            path = paths[turn % len(paths)]
            content = bytearray(path.read_bytes())
            if rng.random() < 0.3:
                content = content[: rng.integers(len(content))]
            for _ in range(rng.integers(1, 6) if content else 0):
                content[rng.integers(min(len(content), rng.choice([60, 10**6])))] = rng.integers(256)
            (damaged := tmp_path / f"damaged{path.suffix}").write_bytes(content)
            try:
                pixels = module["read_rgb"](damaged, [8, None][turn % 2], RESIZES[turn % 3])
            except DataError as error:
                messages.append(str(error))
            else:
                assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
                read += 1
    assert not warned
    assert all(message.isprintable() for message in messages)
    assert min(read, len(messages)) > 100


@pytest.mark.parametrize("shape", [(32, 47), (47, 32), (33, 32), (64, 96), (20, 30)])
def test_crop_is_that_of_torchvision(shape: tuple[int, int]) -> None:
    pixels = photo(*shape)
    expected = functional.center_crop(functional.resize(Image.fromarray(pixels), 32), [32, 32])
    assert_near(fit(pixels, 32, "crop"), np.asarray(expected), 0 if 32 in shape or shape == (64, 96) else 12)


def test_pad_keeps_all_and_centres_it() -> None:
    pixels = photo(50, 100)
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[8:24] = np.asarray(functional.resize(Image.fromarray(pixels), [16, 32]))
    np.testing.assert_array_equal(fit(pixels, 32, "pad"), expected)
    turned = fit(np.ascontiguousarray(pixels.transpose(1, 0, 2)), 32, "pad")
    assert_near(turned, expected.transpose(1, 0, 2), 1)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 4999), (3, 7)])
def test_extreme_proportions_fit(shape: tuple[int, int], resize: Resize) -> None:
    got = fit(np.full((*shape, 3), 200, np.uint8), 32, resize)
    assert got.shape == (32, 32, 3)
    assert got.max() == 200
    assert resize == "pad" or got.min() == 200


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_reading_at_a_size_is_reading_and_fitting(tmp_path: Path, resize: Resize, orientation: int) -> None:
    path = save(tmp_path / "a.png", photo(41, 64), exif=exif(orientation))
    np.testing.assert_array_equal(read_rgb(path, 32, resize), fit(read_rgb(path), 32, resize))
    large = save(tmp_path / "a.jpg", photo(603, 805), exif=exif(orientation), quality=90)
    for size in (32, 75, 100):  # decoded at an eighth, a quarter (padded: a half), a half
        difference = np.abs(read_rgb(large, size, resize) - fit(read_rgb(large), size, resize).astype(float))
        assert 0 < difference.mean() < 0.6
        assert np.percentile(difference, 99) < 4


def test_jpeg_is_decoded_at_a_reduced_scale_if_that_is_large_enough(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", photo(40, 2000))
    for resize, shape in (("crop", (0, 0, 2000, 40)), ("pad", (0, 0, 250, 5))):
        with Image.open(path) as image:
            assert image.draft(None, decode._draft_size(image, 32, resize))[1] == shape


def test_suffixes_are_of_pictures_that_can_be_read() -> None:
    assert {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".mpo"} <= decode.IMAGE_SUFFIXES
    assert decode.IMAGE_SUFFIXES.isdisjoint({".pdf", ".mpg", ".mpeg", ".eps", ".ps", ".wmf", ".h5", ".grib", ".txt"})
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in decode.IMAGE_SUFFIXES)
