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
IDAT_DATA = len(SIGNATURE) + 25 + 8  # offset of the data of IDAT, after IHDR and IDAT's length and name
PIXELS = IDAT_DATA + 7  # offset of the rows in a stored file, after the headers of zlib and of its single block
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
    start = _stored_start(height, width)
    checked = zlib.crc32(start[IDAT_DATA - 4 :])
    end = _chunk(b"IEND", b"")
    files = []
    for image in (row.data for row in rows.reshape(count, -1)):
        adler = zlib.adler32(image).to_bytes(4)
        crc = zlib.crc32(adler, zlib.crc32(image, checked)).to_bytes(4)
        files.append(b"".join((start, image, adler, crc, end)))
    return files


def decode_pngs(contents: Sequence[bytes]) -> np.ndarray | None:
    """Return the pixels of files that ``encode_pngs`` wrote without compression, or None if any file is another one.

    Checksums are verified: for a damaged file it returns None as well, and a general decoder reports the problem.

    Args:
        contents: Contents of the files; images of one size.

    Returns:
        uint8 ``(N, H, W, 3)``.
    """
    first = contents[0]
    if len(first) <= PIXELS or len({len(content) for content in contents}) > 1:
        return None
    width, height = struct.unpack_from(">II", first, 16)
    stored = height * (1 + width * 3)
    if stored > MAX_STORED or len(first) != PIXELS + stored + END:
        return None
    start = first[:PIXELS]
    if start != _stored_start(height, width):
        return None
    for content in contents:
        if content[:PIXELS] != start or zlib.crc32(content[IDAT_DATA - 4 : -16]) != int.from_bytes(content[-16:-12]):
            return None
    files = np.frombuffer(b"".join(contents), np.uint8).reshape(len(contents), -1)
    rows = files[:, PIXELS : PIXELS + stored].reshape(-1, height, 1 + width * 3)
    return None if rows[:, :, 0].any() else rows[:, :, 1:].reshape(-1, height, width, 3)


def _header(height: int, width: int) -> bytes:
    return SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))  # 8 bits per sample, RGB


def _stored_start(height: int, width: int) -> bytes:
    """Return the bytes before the rows of an image in one stored block."""
    size = height * (1 + width * 3)
    zlib_header, block_header = b"\x78\x01", struct.pack("<BHH", 1, size, size ^ 0xFFFF)
    idat = struct.pack(">I", len(zlib_header) + len(block_header) + size + 4) + b"IDAT"
    return _header(height, width) + idat + zlib_header + block_header


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
