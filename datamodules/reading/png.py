"""Write and read plain PNG files, a batch at a time.

A general encoder filters and compresses every row, which takes far more time than the rest of the work and saves no
disk block for a small image. Here rows are stored uncompressed: a valid PNG (W3C, "Portable Network Graphics
Specification", third edition) that any decoder reads, and whose pixels are at a known offset for this module's decoder.
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


def encode_pngs(pixels: np.ndarray, compression: int = 0) -> list[bytes]:
    """Encode RGB images as PNG files.

    Without compression a 32x32 image takes 3,172 bytes, within one 4 KiB block of a file system.

    Args:
        pixels: uint8 ``(N, H, W, 3)``.
        compression: zlib level, 0 (stored) to 9 (smallest).
    """
    count, height, width, _ = pixels.shape
    rows = np.zeros((count, height, 1 + width * 3), np.uint8)  # a leading 0 in each row: filter type "none"
    rows[:, :, 1:] = pixels.reshape(count, height, -1)
    stored = rows[0].nbytes
    if compression > 0 or stored > MAX_STORED:
        header, end = _header(height, width), _chunk(b"IEND", b"")
        return [header + _chunk(b"IDAT", zlib.compress(image, compression)) + end for image in rows]
    zlib_header, block_header = b"\x78\x01", struct.pack("<BHH", 1, stored, stored ^ 0xFFFF)
    size = struct.pack(">I", len(zlib_header) + len(block_header) + stored + 4)
    idat = b"IDAT" + zlib_header + block_header
    start, checked, end = _header(height, width) + size + idat, zlib.crc32(idat), _chunk(b"IEND", b"")
    files = []
    for image in (row.data for row in rows.reshape(count, -1)):
        adler = zlib.adler32(image).to_bytes(4)
        crc = zlib.crc32(adler, zlib.crc32(image, checked)).to_bytes(4)
        files.append(b"".join((start, image, adler, crc, end)))
    return files


def decode_pngs(contents: Sequence[bytes]) -> np.ndarray | None:
    """Return the pixels of files that ``encode_pngs`` wrote without compression, or None if any file is another one.

    It returns None for a damaged file as well, and a general decoder reports the problem.

    Args:
        contents: Contents of the files; images of one size.

    Returns:
        uint8 ``(N, H, W, 3)``.
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


def _header(height: int, width: int) -> bytes:
    return SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))  # 8 bits per sample, RGB


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
