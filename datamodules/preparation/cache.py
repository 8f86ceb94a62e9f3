"""Decode all images in one pass and cache their pixels in one file.

The file is an ordinary ``.npy``, which is memory-mapped: processes share one copy of it, and opening it takes no time.
Its name contains a fingerprint of the files and settings, so that a cache of other files is never used by mistake. It
appears when it is complete; what is written into it later is not noticed, so delete it if in doubt.
"""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from rich.progress import Progress

from atomic_files import write_atomically
from datamodules.errors import DataError
from datamodules.preparation.statistics import Sums, channel_sums
from datamodules.preparation.write_pngs import cores
from datamodules.reading.decode import Resize
from datamodules.reading.read_images import paths_of, read_images

VERSION = 1  # part of the fingerprint; increase it when decoding or resizing changes
CHUNK_BYTES = 128 * 3 * 32 * 32  # bytes of pixels that a thread reads at a time


class Scan(NamedTuple):
    """Results of one pass over all images."""

    sums: Sums
    digests: list[bytes]  # of each image's pixels: equal for identical images
    unreadable: dict[int, DataError]  # by position
    losses: dict[str, list[int]]  # positions of the affected images by key of decode.LOSSES


def fingerprint(root: Path, files: Sequence[str], size: int, resize: Resize | None) -> str:
    """Return a digest of the path, size (-1 if missing) and modification time of each file, and of the settings."""
    facts: list[int] = []
    for path in paths_of(root, files):
        try:
            stat = os.stat(path)
            facts += (stat.st_size, stat.st_mtime_ns)
        except OSError:
            facts += (-1, -1)
    digest = hashlib.sha256("\n".join([f"{VERSION} {size} {resize}", *files]).encode())
    digest.update(np.array(facts, np.int64).tobytes())
    return digest.hexdigest()[:32]


def cache_path(folder: Path, size: int, resize: Resize | None, key: str) -> Path:
    """Return the path of the pixels of a fingerprint."""
    return folder / "cache" / f"{size}_{resize or 'as_is'}_{key}.npy"


def is_cached(path: Path, count: int, size: int) -> bool:
    """Return whether the pixels of ``count`` images are cached."""
    try:
        return path.stat().st_size == len(_header(count, size)) + count * 3 * size * size
    except FileNotFoundError:
        return False


def scan(root: Path, files: Sequence[str], size: int, resize: Resize | None, keep_at: Path | None) -> Scan:
    """Read all images once, with one thread per core.

    Args:
        root: Folder to which the files are relative.
        files: Paths.
        size: Side of the decoded images in pixels.
        resize: How images of another size are resized.
        keep_at: File in which to cache the pixels, uint8 ``(N, 3, size, size)``, instead of earlier ones of this size;
            None for no cache. Unreadable images are black.
    """
    if keep_at is None:
        return _read_all(root, files, size, resize, lambda start, pixels: None)
    keep_at.parent.mkdir(parents=True, exist_ok=True)
    kind = f"{keep_at.stem.rpartition('_')[0]}_*"
    for killed in keep_at.parent.glob(f"{kind}.partial"):
        killed.unlink()
    header = _header(len(files), size)
    with write_atomically(keep_at, durable=True) as partial, partial.open("wb", buffering=0) as file:

        def write(start: int, pixels: np.ndarray) -> None:
            _write(file.fileno(), len(header) + start * pixels[0].nbytes, pixels.data.cast("B"))

        try:
            _write(file.fileno(), 0, memoryview(header))
            result = _read_all(root, files, size, resize, write)
        except OSError as error:
            error.filename = error.filename or keep_at
            raise
    for old in keep_at.parent.glob(kind):  # processes that have mapped them can still read them
        if old != keep_at:
            old.unlink()
    return result


def _read_all(
    root: Path, files: Sequence[str], size: int, resize: Resize | None, keep: Callable[[int, np.ndarray], None]
) -> Scan:
    """Read images in chunks, and call ``keep`` with the position of the first one of each and their pixels."""
    paths = paths_of(root, files)
    sums = Sums(np.empty((len(paths), 3), np.int64), np.empty((len(paths), 3), np.int64))
    digests = [b""] * len(paths)
    unreadable: dict[int, DataError] = {}
    losses: dict[str, list[int]] = {}
    each = max(1, CHUNK_BYTES // (3 * size * size))

    def read(start: int) -> None:
        stop = min(start + each, len(paths))
        problems, lost = dict[int, DataError](), dict[int, list[str]]()
        pixels = read_images(paths[start:stop], size, resize, problems, lost)
        sums.values[start:stop], sums.squares[start:stop] = channel_sums(pixels)
        digests[start:stop] = [hashlib.sha256(image).digest()[:16] for image in pixels]
        unreadable.update((start + i, error) for i, error in problems.items())
        for i, kinds in lost.items():
            for kind in kinds:
                losses.setdefault(kind, []).append(start + i)
        keep(start, pixels)

    pool = ThreadPoolExecutor(cores())
    try:
        jobs = [pool.submit(read, start) for start in range(0, len(paths), each)]
        with Progress() as progress:  # stops if reading fails
            for job in progress.track(jobs, description=f"Reading {len(paths)} images of {root}"):
                job.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return Scan(sums, digests, unreadable, {loss: sorted(rows) for loss, rows in sorted(losses.items())})


def _header(count: int, size: int) -> bytes:
    """Return the bytes before the pixels of an ``.npy`` file."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, 3, size, size)})
    return file.getvalue()


def _write(file: int, place: int, content: memoryview) -> None:
    """Write at a place of a file; with a memory map, a full disk would kill the process."""
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], place + written)
