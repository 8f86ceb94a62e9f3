import io
import struct

import numpy as np
import pytest
from PIL import Image

from datamodules.reading.png import decode_pngs, encode_pngs

SIZES = [(32, 32), (1, 1), (5, 7), (100, 120)]


def random_images(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [*SIZES, (300, 200)])
def test_every_decoder_gets_back_the_very_pixels(size: tuple[int, int]) -> None:
    images = random_images(2, *size)
    contents = encode_pngs(images)
    for pixels, content in zip(images, contents, strict=True):
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            np.testing.assert_array_equal(np.array(image), pixels)
    if size in SIZES:
        np.testing.assert_array_equal(decode_pngs(contents), images)


def test_a_stored_image_of_cifar_10_fits_a_block() -> None:
    assert len(encode_pngs(np.zeros((1, 32, 32, 3), np.uint8))[0]) == 3172


def test_any_other_file_is_left_to_a_general_decoder() -> None:
    images = random_images(2)
    own = encode_pngs(images)
    for level in (0, 6):  # 0 is stored too, but Pillow filters rows
        file = io.BytesIO()
        Image.fromarray(images[0]).save(file, "PNG", compress_level=level)
        assert decode_pngs([own[0], file.getvalue()]) is None
        assert decode_pngs([file.getvalue()]) is None
    assert decode_pngs([b""]) is None
    for width, height in ((0, 0), (0, 5), (5, 0)):
        assert decode_pngs([bytes(16) + struct.pack(">II", width, height) + bytes(44 + height)]) is None
    assert decode_pngs([own[0], encode_pngs(random_images(1, 8, 8))[0]]) is None
    assert decode_pngs(encode_pngs(random_images(1, 300, 200))) is None


def test_every_flipped_bit_is_noticed() -> None:
    content = encode_pngs(random_images(1, 5, 7))[0]
    for position in range(len(content) - 12):  # IEND does not affect the pixels
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[position] ^= bit
            assert decode_pngs([bytes(damaged)]) is None, position
    for length in range(len(content)):
        assert decode_pngs([content[:length]]) is None
