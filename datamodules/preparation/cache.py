"""Decode all images in one pass and cache their pixels in one file.

The file is an ordinary ``.npy``, which is memory-mapped: processes share one copy of it, and opening it takes no time.
Its name contains a fingerprint of the files and settings, so that a cache of other files is never used by mistake. It
appears when it is complete; what is written into it later is not noticed, so delete it if in doubt.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from rich.progress import track

from atomic_files import write_atomically
from datamodules.errors import ImageError
from datamodules.preparation.statistics import channel_sums
from datamodules.preparation.write_pngs import cores
from datamodules.reading.decode import Resize
from datamodules.reading.read_images import paths_of, read_images

VERSION = 1  # part of the fingerprint; increase it when decoding or resizing changes
CHUNK_BYTES = 128 * 3 * 32 * 32  # bytes of pixels that a thread reads at a time
HEADER = 128  # bytes before the pixels of an ``.npy`` file
QUEUED = 64  # chunks that are read before they are written, which limits the memory used


class Scan(NamedTuple):
    """Results of one pass over all images."""

    sums: np.ndarray  # int64 (N, 2, C), see ``channel_sums``
    digests: list[bytes]  # of each image's pixels: equal for identical images
    unreadable: dict[str, str]  # files that cannot be read, sorted, each with the reason
    losses: dict[str, list[str]]  # the affected files, sorted, by key of decode.LOSSES


def fingerprint(root: Path, files: Sequence[str], size: int, resize: Resize | None, channels: int = 3) -> str:
    """Return a digest of the path, size (-1 if missing) and modification time of each file, and of the settings."""
    facts: list[int] = []
    for path in paths_of(root, files):
        try:
            stat = os.stat(path)
            facts += (stat.st_size, stat.st_mtime_ns)
        except OSError:
            facts += (-1, -1)
    settings = f"{VERSION} {size} {resize}" + (f" {channels}" if channels != 3 else "")
    digest = hashlib.sha256("\n".join([settings, *files]).encode())
    digest.update(np.array(facts, np.int64).tobytes())
    return digest.hexdigest()[:32]


def cache_path(folder: Path, size: int, resize: Resize | None, key: str, channels: int = 3, part: str = "") -> Path:
    """Return the path of the pixels of a fingerprint, of all images or of the part with this name."""
    kind = "" if channels == 3 else f"{channels}_channels_"
    return folder / "cache" / f"{kind}{size}_{resize or 'as_is'}{part}_{key}.npy"


def is_cached(path: Path, count: int, size: int, channels: int = 3) -> bool:
    """Return whether the pixels of ``count`` images are cached."""
    try:
        return path.stat().st_size == HEADER + count * channels * size * size
    except FileNotFoundError:
        return False


def scan(
    root: Path,
    files: Sequence[str],
    size: int,
    resize: Resize | None,
    keep_at: Path | None,
    channels: int = 3,
    kept: Sequence[bool] | None = None,
) -> Scan:
    """Read all images once, with one thread per core.

    Their pixels, uint8 ``(N, channels, size, size)``, are cached in ``keep_at`` instead of earlier ones of this size,
    unless it is None. Unreadable images are black. ``kept`` is whether each image is cached; by default, all are.
    """
    paths = paths_of(root, files)
    sums, digests = np.empty((len(paths), 2, channels), np.int64), [b""] * len(paths)
    unreadable: dict[int, ImageError] = {}
    losses: dict[str, list[str]] = {}
    each = max(1, CHUNK_BYTES // (channels * size * size))

    def read(start: int) -> np.ndarray:
        part = slice(start, start + each)
        problems, lost = dict[int, ImageError](), dict[int, list[str]]()
        pixels = read_images(paths[part], size, resize, problems, lost, channels)
        sums[part] = channel_sums(pixels)
        digests[part] = [hashlib.sha256(image).digest()[:16] for image in pixels]
        unreadable.update((start + i, error) for i, error in problems.items())
        for i, kind in [(i, kind) for i, kinds in lost.items() for kind in kinds]:
            losses.setdefault(kind, []).append(files[start + i])
        return pixels if kept is None else pixels[np.array(kept[part])]

    starts = range(0, len(paths), each)
    with ThreadPoolExecutor(cores()) as pool, _writing(keep_at) as file:
        shape = (len(paths) if kept is None else sum(kept), channels, size, size)
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for first in track(range(0, len(starts), QUEUED), f"Reading {len(paths)} images of {root}"):
            for pixels in pool.map(read, starts[first : first + QUEUED]):
                file.write(pixels.data)
    problems = {files[row]: str(unreadable[row]) for row in sorted(unreadable)}
    return Scan(sums, digests, problems, {loss: sorted(affected) for loss, affected in sorted(losses.items())})


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[BinaryIO]:
    """Open a cache for writing; delete the others of its size at the end. A memory map would crash on a full disk."""
    if path is None:
        with open(os.devnull, "wb") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with write_atomically(path, durable=True) as partial, partial.open("wb") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or path
        raise
    kind = f"{path.stem.rpartition('_')[0]}_*"
    for old in path.parent.glob(kind):  # also of killed processes; those that have mapped it can still read it
        if old != path:
            with contextlib.suppress(PermissionError):  # Windows does not delete what is mapped
                old.unlink()
