"""Turn arrays of pixels into a tree of PNG files."""

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from datamodules.index import Entry

CHECKSUMS = "SHA256SUMS"  # written last: a folder that holds it is complete; `sha256sum -c SHA256SUMS` checks it
SOURCE = "source.json"


class ImageBatch(NamedTuple):
    """Images that lie next to one another in a source."""

    subset: str  # folder below images/, as "train" or "test"
    first_index: int  # index of the first image within its subset
    pixels: np.ndarray  # uint8 (N, H, W, 3)
    labels: np.ndarray  # int64 (N,)


def encode_png(pixels: np.ndarray, compression: int = 0) -> bytes:
    """Return an RGB image as the bytes of a PNG file.

    Several times faster than a general encoder, because every row is stored unfiltered. Without compression a 32x32
    image takes 3,172 bytes, within one 4 KiB block of a file system, so that compressing it would save nothing.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        compression: zlib level, 0 (stored) to 9 (smallest).
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # a leading 0 in each row: filter type "none"
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a sample, colour type 2: RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), compression)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def list_converted(images: Path, subset: str) -> list[Entry]:
    """Return path (relative to the data root) and label of each image of a complete subset, in order of its index."""
    names = [line.split("  ", 1)[1] for line in (images / subset / CHECKSUMS).read_text().splitlines()]
    found = []
    for name in names:
        label, index = Path(name).stem.split("_")
        found.append((int(index), f"{images.name}/{subset}/{name}", int(label)))
    return [(path, label) for _, path, label in sorted(found)]


def read_source(images: Path, subset: str) -> dict[str, Any]:
    """Return what ``convert`` was told of where the images came from."""
    return json.loads((images / subset / SOURCE).read_text())


def is_converted(images: Path, subset: str) -> bool:
    """Tell whether ``images/<subset>`` is complete."""
    return (images / subset / CHECKSUMS).is_file()


def convert(
    batches: Iterable[ImageBatch], images: Path, class_names: Sequence[str], total: int, source: dict[str, Any]
) -> None:
    """Write ``images/<subset>/<class name>/<label>_<index>.png`` for every image of ``batches``.

    Works beside the target and renames at the end: after a kill at any moment, each subset is there completely or not
    at all, and the next call starts afresh.

    Args:
        batches: The images, those of a subset in any order.
        images: Folder of the subsets.
        class_names: Name of each label; a folder each.
        total: Number of images, for the progress bar.
        source: Where the images come from; kept beside them in ``source.json``.
    """
    partial = images.with_name(images.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    checksums: dict[str, list[str]] = {}
    labelled = (
        (batch.subset, batch.first_index + i, pixels, int(label))
        for batch in batches
        for i, (pixels, label) in enumerate(zip(batch.pixels, batch.labels, strict=True))
    )
    for subset, index, pixels, label in track(labelled, f"Writing PNG files to {images}", total=total):
        if subset not in checksums:
            checksums[subset] = []
            for name in class_names:
                (partial / subset / name).mkdir(parents=True)
        file = f"{class_names[label]}/{label}_{index}.png"
        content = encode_png(pixels)
        (partial / subset / file).write_bytes(content)
        checksums[subset].append(f"{hashlib.sha256(content).hexdigest()}  {file}\n")

    images.mkdir(parents=True, exist_ok=True)
    for subset, lines in checksums.items():
        (partial / subset / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        (partial / subset / CHECKSUMS).write_text("".join(lines))
        shutil.rmtree(images / subset, ignore_errors=True)  # without its checksums: nobody's complete work
        (partial / subset).rename(images / subset)
    shutil.rmtree(partial, ignore_errors=True)
