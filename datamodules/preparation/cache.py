"""Decode every image once: look through all files in one pass, and keep their pixels in one file.

The file is an ordinary ``.npy``, mapped rather than read: processes share one copy of it, and starting costs nothing.
Its name holds a fingerprint of all that went into it, so that a cache of other files is never taken for this one.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from rich.progress import Progress

from datamodules.errors import DataError
from datamodules.preparation.index import write_text
from datamodules.preparation.statistics import Sums, channel_sums
from datamodules.preparation.write_pngs import cores
from datamodules.reading.decode import LOSSES, Resize
from datamodules.reading.read_images import paths_of, read_images

VERSION = 1  # of what a fingerprint stands for; to be raised when decoding or resizing changes
CHUNK_BYTES = 128 * 3 * 32 * 32  # of pixels that a thread reads at a time


class Scan(NamedTuple):
    """What one pass over all images finds."""

    sums: Sums
    digests: list[bytes]  # of each image's pixels: equal for identical images
    unreadable: dict[int, DataError]  # by position
    losses: dict[str, list[int]]  # keys of decode.LOSSES, and the positions of the images that each applies to


def fingerprint(root: Path, files: Sequence[str], size: int, resize: Resize | None) -> str:
    """Return a digest of each file's path, size and time of change, and of how they are decoded.

    A file that is not there counts as one of a size of its own, so that its return is noticed as well.
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
    """Return where the pixels of a fingerprint lie."""
    return root / "cache" / f"{size}_{resize or 'as_is'}_{key}.npy"


def chunk_of(size: int) -> int:
    """Return how many images of a side are read at a time."""
    return max(1, CHUNK_BYTES // (3 * size * size))


def scan(root: Path, files: Sequence[str], size: int, resize: Resize | None, keep_at: Path | None) -> Scan:
    """Read all images once, by as many threads as there are cores.

    Args:
        root: Folder that the files are relative to.
        files: Paths.
        size: Side of the decoded images in pixels.
        resize: How an image of another size is made to fit.
        keep_at: Where to keep the pixels, uint8 ``(N, 3, size, size)``; that of an unreadable file is black.
    """
    paths = paths_of(root, files)
    sums = Sums(np.empty((len(paths), 3), np.int64), np.empty((len(paths), 3), np.int64))
    digests = [b""] * len(paths)
    unreadable: dict[int, DataError] = {}
    losses: dict[str, list[int]] = {loss: [] for loss in LOSSES}
    out, begin = _create(keep_at, (len(paths), 3, size, size)) if keep_at is not None else (-1, 0)

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
        while written < len(content):  # not through a map, where a full disk would kill the process
            written += os.pwrite(out, content[written:], place + written)
        return zlib.crc32(content)

    pool = ThreadPoolExecutor(cores())
    try:
        jobs = [pool.submit(work, start) for start in range(0, len(paths), each)]
        with Progress() as progress:  # which stops if reading fails
            tracked = progress.track(jobs, description=f"Reading {len(paths)} images of {root}")
            checksums = [job.result() for job in tracked]
    except BaseException as error:
        pool.shutdown(cancel_futures=True)
        if keep_at is not None:
            keep_at.with_suffix(".partial").unlink()  # on a full disk, room is what is missing
        if isinstance(error, OSError):
            error.filename = error.filename or keep_at
        raise
    finally:
        pool.shutdown()
        if out >= 0:
            os.close(out)
    if keep_at is not None:
        _publish(keep_at, checksums)
    return Scan(sums, digests, unreadable, {loss: sorted(rows) for loss, rows in losses.items() if rows})


def open_cache(path: Path, count: int, size: int) -> np.ndarray | None:
    """Return kept pixels, uint8 ``(count, 3, size, size)``, mapped from disk, or None unless they are as kept.

    The map cannot be written to.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        stat = path.stat()
        if stat.st_size != facts["bytes"]:
            return None
        pixels = np.load(path, mmap_mode="r")
        if pixels.shape != (count, 3, size, size) or pixels.dtype != np.uint8:
            return None
        if stat.st_mtime_ns != facts["mtime_ns"]:  # touched or copied since: its content decides
            each = chunk_of(size)
            for chunk, checksum in enumerate(facts["crc32"]):
                if zlib.crc32(pixels[chunk * each : (chunk + 1) * each]) != checksum:
                    return None
        return pixels
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _create(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """Begin an ``.npy`` file beside its target, and return its descriptor and where the data begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for killed in path.parent.glob(f"{_kind(path)}*.partial"):
        killed.unlink()
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        begin = file.tell()
    return os.open(partial, os.O_WRONLY), begin


def _publish(path: Path, checksums: Sequence[int]) -> None:
    """Rename a complete file to its target, note how it is known again, and drop those that it replaces."""
    for old in path.parent.glob(f"{_kind(path)}*"):
        if old.suffix != ".partial":  # processes that use them keep them mapped
            old.unlink()
    os.replace(path.with_suffix(".partial"), path)
    stat = path.stat()
    facts = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "crc32": list(checksums)}
    write_text(path.with_suffix(".json"), json.dumps(facts) + "\n")


def _kind(path: Path) -> str:
    """Return what begins the names of all files of this size and way of resizing."""
    return f"{path.stem.rpartition('_')[0]}_"
