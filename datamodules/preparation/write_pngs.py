"""Write arrays of pixels as a tree of PNG files."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from datamodules.errors import DataError
from datamodules.preparation.index import Entry
from datamodules.reading.png import encode_pngs

JOB = 500  # images that a thread writes at a time
SOURCE = "source.json"  # origin of the images of a subset
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)  # Windows would change line ends


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
    numbers = {}
    for file in (images / subset).glob("*/[!.]*.png"):
        label, index = file.stem.split("_")
        numbers[file.relative_to(images.parent).as_posix()] = int(index), int(label)
    return [(file, label) for file, (_, label) in sorted(numbers.items(), key=lambda item: item[1])]


def read_source(images: Path, subset: str) -> dict[str, Any]:
    """Return the origin of the images of a subset."""
    return json.loads((images / subset / SOURCE).read_text())


def find_missing(images: Path, subsets: Iterable[str]) -> list[str]:
    """Return the subsets that are yet to be written.

    Raises:
        DataError: The folder of one holds files of another program.
    """
    missing = [subset for subset in subsets if not (images / subset / SOURCE).is_file()]
    for folder in [images / subset for subset in missing if (images / subset).is_dir()]:
        if any(folder.iterdir()):
            raise DataError(f"Expected no files in {folder}, because images are written there. Move them away.")
    return missing


def convert(batches: Iterable[ImageBatch], images: Path, class_names: Sequence[str], source: dict[str, Any]) -> None:
    """Write ``images/<subset>/<class name>/<label>_<index>.png`` for every image of ``batches``.

    Files are written next to the target, and each subset is renamed at the end: after a kill at any moment, each is
    either complete or missing, and the next call starts from scratch. A folder that exists is not changed.

    ``source``, the origin of the images, is written next to them.
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
            (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
            paths = [
                f"{folder}/{class_names[label]}/{label}_{index}.png"
                for index, label in enumerate(batch.labels.tolist(), start=batch.first_index)
            ]
            parts = [slice(start, start + JOB) for start in range(0, len(paths), JOB)]
            jobs += [pool.submit(_write_pngs, paths[part], batch.pixels[part]) for part in parts]
        for job in track(jobs, f"Writing PNG files to {images}"):
            job.result()
    except BaseException:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(partial, ignore_errors=True)  # frees space on a full disk
        raise
    pool.shutdown()
    images.mkdir(parents=True, exist_ok=True)
    for folder in partial.iterdir():
        folder.rename(images / folder.name)
    partial.rmdir()


def _write_pngs(paths: Sequence[str], pixels: np.ndarray) -> None:
    for path, content in zip(paths, encode_pngs(pixels), strict=True):
        file = os.open(path, FLAGS, 0o666)  # three times as fast as open()
        try:
            if os.write(file, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(file)
