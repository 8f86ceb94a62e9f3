"""Write arrays of pixels as a tree of PNG files."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress, track

from datamodules.errors import DataError, first_few
from datamodules.preparation.index import Entry
from datamodules.reading.png import encode_pngs

JOB = 500  # images that a thread writes at a time
CHECKSUMS = "SHA256SUMS"  # written last: a folder that contains it is complete; `sha256sum -c SHA256SUMS` checks it
SOURCE = "source.json"


def cores() -> int:
    """Return the number of cores that this process may use; a batch system may limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ImageBatch(NamedTuple):
    """Consecutive images of a source."""

    subset: str  # subfolder of images/, such as "train" or "test"
    first_index: int  # index of the first image within its subset
    pixels: np.ndarray  # uint8 (N, H, W, 3)
    labels: np.ndarray  # int64 (N,)


def list_converted(images: Path, subset: str) -> list[Entry]:
    """Return the path, relative to the data root, and label of each image of a complete subset, ordered by index."""
    images_by_index = []
    for name in _checksums(images / subset):
        label, index = Path(name).stem.split("_")
        images_by_index.append((int(index), f"{images.name}/{subset}/{name}", int(label)))
    return [(path, label) for _, path, label in sorted(images_by_index)]


def read_source(images: Path, subset: str) -> dict[str, Any]:
    """Return the source of the images that was passed to ``convert``."""
    return json.loads((images / subset / SOURCE).read_text())


def find_missing(images: Path, subsets: Iterable[str]) -> list[str]:
    """Return the subsets that are yet to be written.

    Raises:
        DataError: The folder of one exists, but was not written by this project. Such a folder contains checksums.
    """
    missing = [subset for subset in subsets if not (images / subset / CHECKSUMS).is_file()]
    for folder in (images / subset for subset in missing):
        if folder.exists():
            raise DataError(
                f"Expected no folder {folder}, where images will be written, but it exists and was not written by this "
                "project. For images of your own, use --data datamodules.FolderDataModule; or change --data.root."
            )
    return missing


def convert(
    batches: Iterable[ImageBatch],
    images: Path,
    class_names: Sequence[str],
    total: int,
    source: dict[str, Any],
    compression: int = 0,
) -> None:
    """Write ``images/<subset>/<class name>/<label>_<index>.png`` for every image of ``batches``.

    Files are written next to the target, which is renamed at the end: after a kill at any moment, each subset is either
    complete or missing, and the next call starts from scratch. A subset must be missing (``find_missing``).

    Args:
        batches: Images; those of a subset in any order.
        images: Parent folder of the subsets.
        class_names: Name of each label, used as the name of its folder.
        total: Number of images, for the progress bar.
        source: Origin of the images; written to ``source.json``.
        compression: zlib level of the PNG files, 0 (stored) to 9 (smallest).
    """
    partial = images.with_name(images.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    jobs = []
    pool = ThreadPoolExecutor(cores())  # threads, because most of the work releases the GIL
    try:
        for batch in batches:
            folder = partial / batch.subset
            for name in class_names:
                (folder / name).mkdir(parents=True, exist_ok=True)
            for start in range(0, len(batch.pixels), JOB):
                part = slice(start, start + JOB)
                names = [
                    f"{class_names[label]}/{label}_{batch.first_index + start + i}.png"
                    for i, label in enumerate(batch.labels[part].tolist())
                ]
                jobs.append((folder, pool.submit(_write_pngs, folder, names, batch.pixels[part], compression)))
        lines: dict[Path, list[str]] = {}
        with Progress() as progress:
            task = progress.add_task(f"Writing PNG files to {images}", total=total)
            for folder, job in jobs:
                lines.setdefault(folder, []).extend(job.result())
                progress.update(task, completed=sum(map(len, lines.values())))
    except BaseException:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial, ignore_errors=True)  # frees space on a full disk
        raise
    pool.shutdown()

    images.mkdir(parents=True, exist_ok=True)
    for folder, checksums in lines.items():
        (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        (folder / CHECKSUMS).write_text("".join(checksums))
        folder.rename(images / folder.name)
    shutil.rmtree(partial)


def verify(images: Path, subset: str) -> None:
    """Compare every file of a subset, if it is complete, with its checksum.

    Raises:
        DataError: A file is missing, changed or unknown.
    """
    folder = images / subset
    if not (folder / CHECKSUMS).is_file():
        return
    expected = _checksums(folder)
    existing = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")}

    def check(name: str) -> str | None:
        if name not in existing:
            return f"{name} is missing"
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        return None if digest == expected[name] else f"{name} was changed"

    with ThreadPoolExecutor(cores()) as pool:
        results = track(pool.map(check, expected), f"Verifying {folder}", total=len(expected))
        problems = [problem for problem in results if problem]
    problems += [f"{name} is not in {CHECKSUMS}" for name in sorted(existing - expected.keys())]
    if problems:
        raise DataError(
            f"Expected the files of {folder} as they were written, but {len(problems)} are not: {first_few(problems)}. "
            "Delete this folder; the next run writes it again."
        )


def _checksums(folder: Path) -> dict[str, str]:
    """Return the digest of each file in the manifest by its name."""
    lines = (folder / CHECKSUMS).read_text().splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_pngs(folder: Path, names: Sequence[str], pixels: np.ndarray, compression: int) -> list[str]:
    """Write one image for each name, and return the lines of the manifest."""
    lines = []
    for name, content in zip(names, encode_pngs(pixels, compression), strict=True):
        path = f"{folder}/{name}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # three times as fast as open()
        try:
            if os.write(file, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(file)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    return lines
