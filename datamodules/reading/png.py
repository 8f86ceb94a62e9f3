"""Write and read plain PNG files, a batch at a time.

Filtering and compressing rows would take far more time than the rest of the work, and save no disk block for a small
image. Here they are stored: any decoder reads the file (W3C, "Portable Network Graphics Specification", third edition),
and this module's decoder finds the pixels at a known offset.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_STORED = 65_535  # bytes in one stored block of deflate (RFC 1951, 3.2.4)
# offset of the rows in a stored file: after IHDR, IDAT's length and name, and the headers of zlib and its only block
PIXELS = len(SIGNATURE) + 25 + 8 + 7
END = 4 + 4 + 12  # bytes after the rows: Adler-32, the CRC of IDAT, and IEND
MAX_FILE = PIXELS + MAX_STORED + END


def encode_pngs(pixels: np.ndarray) -> list[bytes]:
    """Encode RGB images, uint8 ``(N, H, W, 3)``, as PNG files.

    A 32x32 image takes 3,172 bytes, within one 4 KiB block of a file system.
    """
    count, height, width, _ = pixels.shape
    rows = np.zeros((count, height, 1 + width * 3), np.uint8)  # a leading 0 in each row: filter type "none"
    rows[:, :, 1:] = pixels.reshape(count, height, -1)
    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits per sample, RGB
    start, end = SIGNATURE + _chunk(b"IHDR", shape), _chunk(b"IEND", b"")
    return [start + _chunk(b"IDAT", zlib.compress(image, level=0)) + end for image in rows]


def decode_pngs(contents: Sequence[bytes]) -> np.ndarray | None:
    """Return the pixels, uint8 ``(N, H, W, 3)``, of files of one size that ``encode_pngs`` wrote.

    It returns None if any file is another one or damaged, and a general decoder reports the problem.
    """
    if len(contents[0]) <= PIXELS or len({len(content) for content in contents}) > 1:
        return None
    width, height = struct.unpack_from(">II", contents[0], 16)
    stored = height * (1 + width * 3)
    if not (width and height) or len(contents[0]) != PIXELS + stored + END:
        return None
    files = np.frombuffer(b"".join(contents), np.uint8).reshape(len(contents), -1)
    rows = files[:, PIXELS : PIXELS + stored].reshape(-1, height, 1 + width * 3)
    pixels = rows[:, :, 1:].reshape(-1, height, width, 3)
    return pixels if encode_pngs(pixels) == list(contents) else None  # the same bytes, including all checksums


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
