"""Decode all images in one pass and cache their pixels in one file.

The file is an ordinary ``.npy``, which is memory-mapped: processes share one copy of it, and opening it takes no time.
Its name contains a fingerprint of the files and settings, so that a cache of other files is never used by mistake.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from rich.progress import Progress

from atomic_files import write_atomically
from datamodules.errors import DataError
from datamodules.preparation.statistics import Sums, channel_sums
from datamodules.preparation.write_pngs import cores
from datamodules.reading.decode import LOSSES, Resize
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
    """Return a digest of the path, size and modification time of each file, and of the decoding settings.

    A missing file has size -1, so that the fingerprint changes when it is restored.
    """
    facts: list[int] = []
    for path in paths_of(root, files):
        try:
            stat = os.stat(path)
            facts.append(stat.st_size)
            facts.append(stat.st_mtime_ns)
        except OSError:
            facts += (-1, -1)
    digest = hashlib.sha256("\n".join([f"{VERSION} {size} {resize}", *files]).encode())
    digest.update(np.array(facts, np.int64).tobytes())
    return digest.hexdigest()[:32]


def cache_path(root: Path, size: int, resize: Resize | None, key: str) -> Path:
    """Return the path of the pixels of a fingerprint."""
    return root / "cache" / f"{size}_{resize or 'as_is'}_{key}.npy"


def chunk_of(size: int) -> int:
    """Return how many images of a given side are read at a time."""
    return max(1, CHUNK_BYTES // (3 * size * size))


def scan(root: Path, files: Sequence[str], size: int, resize: Resize | None, keep_at: Path | None) -> Scan:
    """Read all images once, with one thread per core.

    Args:
        root: Folder to which the files are relative.
        files: Paths.
        size: Side of the decoded images in pixels.
        resize: How images of another size are resized.
        keep_at: File in which to cache the pixels, uint8 ``(N, 3, size, size)``; None for no cache. Unreadable images
            are black.
    """
    paths = paths_of(root, files)
    sums = Sums(np.empty((len(paths), 3), np.int64), np.empty((len(paths), 3), np.int64))
    digests = [b""] * len(paths)
    unreadable: dict[int, DataError] = {}
    losses: dict[str, list[int]] = {loss: [] for loss in LOSSES}
    each = chunk_of(size)

    def work(start: int) -> int:
        chunk = paths[start : start + each]
        stop = start + len(chunk)
        pixels = read_images(
            chunk,
            size,
            resize,
            lambda i, error: unreadable.__setitem__(start + i, error),
            lambda i, loss: losses[loss].append(start + i),
        )
        sums.values[start:stop], sums.squares[start:stop] = channel_sums(pixels)
        digests[start:stop] = [hashlib.sha256(image).digest()[:16] for image in pixels]
        if out < 0:
            return 0
        content = pixels.data.cast("B")
        written, place = 0, begin + start * pixels[0].nbytes
        while written < len(content):  # with a memory map, a full disk would kill the process
            written += os.pwrite(out, content[written:], place + written)
        return zlib.crc32(content)

    with _create(keep_at, (len(paths), 3, size, size)) as (out, begin):
        pool = ThreadPoolExecutor(cores())
        try:
            jobs = [pool.submit(work, start) for start in range(0, len(paths), each)]
            with Progress() as progress:  # stops if reading fails
                tracked = progress.track(jobs, description=f"Reading {len(paths)} images of {root}")
                checksums = [job.result() for job in tracked]
        except OSError as error:
            error.filename = error.filename or keep_at
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if keep_at is not None:
        stat = keep_at.stat()
        facts = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "crc32": checksums}
        with write_atomically(keep_at.with_suffix(".json")) as partial:
            partial.write_bytes(f"{json.dumps(facts)}\n".encode())
    return Scan(sums, digests, unreadable, {loss: sorted(rows) for loss, rows in losses.items() if rows})


def open_cache(path: Path, count: int, size: int) -> np.ndarray | None:
    """Return cached pixels, uint8 ``(count, 3, size, size)``, memory-mapped and read-only.

    Returns None if the cache is missing or differs from what was written.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        stat = path.stat()
        if stat.st_size != facts["bytes"]:
            return None
        pixels = np.load(path, mmap_mode="r")
        if pixels.shape != (count, 3, size, size) or pixels.dtype != np.uint8:
            return None
        if stat.st_mtime_ns != facts["mtime_ns"]:  # touched or copied: compare checksums
            each = chunk_of(size)
            for chunk, checksum in enumerate(facts["crc32"]):
                if zlib.crc32(pixels[chunk * each : (chunk + 1) * each]) != checksum:
                    return None
        return pixels
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _create(path: Path | None, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the descriptor of a new ``.npy`` file and the offset of its data; -1 and 0 if ``path`` is None.

    At the end, the file replaces all caches of this size and resize mode.
    """
    if path is None:
        yield -1, 0
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = f"{path.stem.rpartition('_')[0]}_*"
    for killed in path.parent.glob(f"{kind}.partial"):
        killed.unlink()
    with write_atomically(path) as partial:
        with partial.open("wb") as file:
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.flush()
            yield file.fileno(), file.tell()
        for old in path.parent.glob(kind):
            if old.suffix != ".partial":  # processes that have mapped them can still read them
                old.unlink()
