"""Turn arrays of pixels into a tree of PNG files."""

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
CHECKSUMS = "SHA256SUMS"  # written last: a folder that holds it is complete; `sha256sum -c SHA256SUMS` checks it
SOURCE = "source.json"


def cores() -> int:
    """Return how many cores this process may use, which a batch system may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ImageBatch(NamedTuple):
    """Images that lie next to one another in a source."""

    subset: str  # folder below images/, as "train" or "test"
    first_index: int  # index of the first image within its subset
    pixels: np.ndarray  # uint8 (N, H, W, 3)
    labels: np.ndarray  # int64 (N,)


def list_converted(images: Path, subset: str) -> list[Entry]:
    """Return path (relative to the data root) and label of each image of a complete subset, in order of its index."""
    found = []
    for _, name in _checksums(images / subset):
        label, index = Path(name).stem.split("_")
        found.append((int(index), f"{images.name}/{subset}/{name}", int(label)))
    return [(path, label) for _, path, label in sorted(found)]


def read_source(images: Path, subset: str) -> dict[str, Any]:
    """Return what ``convert`` was told of where the images came from."""
    return json.loads((images / subset / SOURCE).read_text())


def is_converted(images: Path, subset: str) -> bool:
    """Tell whether ``images/<subset>`` is complete."""
    return (images / subset / CHECKSUMS).is_file()


def check_free(images: Path, subsets: Iterable[str]) -> None:
    """Raise DataError if there is a folder where a subset should be made: it is somebody else's.

    A folder of ours appears with its checksums in it.
    """
    for subset in subsets:
        if (images / subset).exists() and not is_converted(images, subset):
            raise DataError(
                f"Expected no {images / subset}, where images are to be made, but it is there, and is not of this "
                "project's making. For images of your own, give --data datamodules.FolderDataModule; or give "
                "--data.root another folder."
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

    Works beside the target and renames at the end: after a kill at any moment, each subset is there completely or not
    at all, and the next call starts afresh.

    Raises:
        DataError: A folder of somebody else's is in the way.

    Args:
        batches: The images, those of a subset in any order.
        images: Folder of the subsets.
        class_names: Name of each label; a folder each.
        total: Number of images, for the progress bar.
        source: Where the images come from; kept beside them in ``source.json``.
        compression: zlib level of the PNG files, 0 (stored) to 9 (smallest).
    """
    partial = images.with_name(images.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    jobs: dict[str, list[Future[list[str]]]] = {}
    pool = ThreadPoolExecutor(cores())  # threads: nearly all of the work is done by the system and by zlib
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
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk, room is what is missing
        raise
    pool.shutdown()

    images.mkdir(parents=True, exist_ok=True)
    for subset in lines:
        (partial / subset / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        (partial / subset / CHECKSUMS).write_text("".join(lines[subset]))
        (partial / subset).rename(images / subset)
    shutil.rmtree(partial)


def verify(images: Path, subset: str) -> list[str]:
    """Return what is wrong with the files of a complete subset: missing, changed or unknown, a line each."""
    folder = images / subset
    wanted = {name: digest for digest, name in _checksums(folder)}
    found = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")}

    def check(name: str) -> str | None:
        if name not in found:
            return f"{folder / name} is missing"
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        return None if digest == wanted[name] else f"{folder / name} is not the file that was written"

    with ThreadPoolExecutor(cores()) as pool:
        wrong = track(pool.map(check, wanted), f"Verifying {folder}", total=len(wanted))
        problems = [problem for problem in wrong if problem]
    return problems + [f"{folder / name} is in no manifest" for name in sorted(found - wanted.keys())]


def _checksums(folder: Path) -> list[tuple[str, str]]:
    """Return digest and name of each file in a manifest."""
    lines = (folder / CHECKSUMS).read_text().splitlines()
    return [(digest, name) for digest, _, name in (line.partition("  ") for line in lines)]


def _write_pngs(folder: str, names: Sequence[str], pixels: np.ndarray, compression: int) -> list[str]:
    """Write one image a name, and return the lines of the manifest."""
    lines = []
    for name, content in zip(names, encode_pngs(pixels, compression), strict=True):
        path = f"{folder}/{name}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # a third of the time that open() takes
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
