"""Write arrays of pixels as a tree of PNG files."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import Progress, track

from datamodules.errors import DataError
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
    for _, name in _checksums(images / subset):
        label, index = Path(name).stem.split("_")
        images_by_index.append((int(index), f"{images.name}/{subset}/{name}", int(label)))
    return [(path, label) for _, path, label in sorted(images_by_index)]


def read_source(images: Path, subset: str) -> dict[str, Any]:
    """Return the source of the images that was passed to ``convert``."""
    return json.loads((images / subset / SOURCE).read_text())


def is_converted(images: Path, subset: str) -> bool:
    """Return whether ``images/<subset>`` is complete."""
    return (images / subset / CHECKSUMS).is_file()


def check_free(images: Path, subsets: Iterable[str]) -> None:
    """Raise DataError if the folder of a subset exists but was not written by this project.

    A folder of this project always contains its checksums, because it is renamed when complete.
    """
    for subset in subsets:
        if (images / subset).exists() and not is_converted(images, subset):
            raise DataError(
                f"Expected no folder {images / subset}, where images will be written, but it exists and was not "
                "written by this project. For images of your own, use --data datamodules.FolderDataModule; or "
                "change --data.root."
            )


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
    complete or missing, and the next call starts from scratch.

    Raises:
        DataError: A folder that this project did not write exists at the target.

    Args:
        batches: Images; those of a subset in any order.
        images: Parent folder of the subsets.
        class_names: Name of each label, used as the name of its folder.
        total: Number of images, for the progress bar.
        source: Origin of the images; written to ``source.json``.
        compression: zlib level of the PNG files, 0 (stored) to 9 (smallest).
    """
    partial = images.with_name(images.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    jobs: dict[str, list[Future[list[str]]]] = {}
    pool = ThreadPoolExecutor(cores())  # threads, because most of the work releases the GIL
    try:
        for batch in batches:
            if batch.subset not in jobs:
                check_free(images, [batch.subset])
                jobs[batch.subset] = []
                for name in class_names:
                    (partial / batch.subset / name).mkdir(parents=True)
            for start in range(0, len(batch.pixels), JOB):
                part = slice(start, start + JOB)
                names = [
                    f"{class_names[label]}/{label}_{batch.first_index + start + i}.png"
                    for i, label in enumerate(batch.labels[part].tolist())
                ]
                folder = str(partial / batch.subset)
                jobs[batch.subset].append(pool.submit(_write_pngs, folder, names, batch.pixels[part], compression))
        with Progress() as progress:
            task = progress.add_task(f"Writing PNG files to {images}", total=total)
            lines: dict[str, list[str]] = {}
            for subset, parts in jobs.items():
                lines[subset] = []
                for job in parts:
                    lines[subset].extend(job.result())
                    progress.update(task, completed=sum(map(len, lines.values())))
    except BaseException:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial, ignore_errors=True)  # frees space on a full disk
        raise
    pool.shutdown()

    images.mkdir(parents=True, exist_ok=True)
    for subset in lines:
        (partial / subset / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        (partial / subset / CHECKSUMS).write_text("".join(lines[subset]))
        (partial / subset).rename(images / subset)
    shutil.rmtree(partial)


def verify(images: Path, subset: str) -> list[str]:
    """Return the missing, changed and unknown files of a complete subset, one line each."""
    folder = images / subset
    expected = {name: digest for digest, name in _checksums(folder)}
    existing = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")}

    def check(name: str) -> str | None:
        if name not in existing:
            return f"{folder / name} is missing"
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        return None if digest == expected[name] else f"{folder / name} was changed after it was written"

    with ThreadPoolExecutor(cores()) as pool:
        results = track(pool.map(check, expected), f"Verifying {folder}", total=len(expected))
        problems = [problem for problem in results if problem]
    return problems + [f"{folder / name} is not in the manifest" for name in sorted(existing - expected.keys())]


def _checksums(folder: Path) -> list[tuple[str, str]]:
    """Return the digest and name of each file in the manifest."""
    lines = (folder / CHECKSUMS).read_text().splitlines()
    return [(digest, name) for digest, _, name in (line.partition("  ") for line in lines)]


def _write_pngs(folder: str, names: Sequence[str], pixels: np.ndarray, compression: int) -> list[str]:
    """Write one image for each name, and return the lines of the manifest."""
    lines = []
    for name, content in zip(names, encode_pngs(pixels, compression), strict=True):
        path = f"{folder}/{name}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # three times as fast as open()
        try:
            if os.write(file, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(file)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    return lines
