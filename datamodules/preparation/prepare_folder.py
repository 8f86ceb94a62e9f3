"""Prepare the images, index files, ``dataset.json`` and cache of a data folder."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import DataError
from datamodules.preparation.dataset_info import FILE, DatasetInfo, load_description, write_description
from datamodules.preparation.describe import DataFolder, Prepared, describe, find_prepared, without
from datamodules.preparation.index import (
    STAGES,
    Entries,
    check_entries,
    count_labels,
    digest_of,
    index_path,
    read_index,
    write_index,
)

CLASSES = "classes.txt"  # names of the classes, one per line, where folders do not name them
GIVEN = {"name": "given"}  # settings of index files that this project did not write


class Source(Protocol):
    """What a data module defines; see ``ImageDataModule``."""

    folder: DataFolder
    overwrite_split: bool

    @property
    def split_settings(self) -> dict[str, Any]: ...
    def prepare_images(self) -> None: ...
    def make_split(self) -> Entries: ...
    def find_class_names(self, entries: Entries) -> Sequence[str]: ...
    def source(self) -> dict[str, Any]: ...


class Split(NamedTuple):
    """The entries of the index files, and the settings that they were created with."""

    settings: dict[str, Any]
    entries: Entries
    is_new: bool  # whether index files are missing or differ


def prepare(data: Source) -> Prepared:
    """Return the images of a data module, after creating everything that is missing or outdated.

    Safe to call from several processes at once, and again after a kill at any moment: each file appears when it is
    complete, and ``dataset.json``, which names the digests of the index files, is written last.

    Raises:
        DataError: The images are not available, or index files with other split settings exist.
    """
    folder = data.folder
    try:
        prepared = load(data)
        if prepared is None:
            with exclusive(folder.path):
                prepared = load(data) or create(data)
        return prepared
    except OSError as error:
        raise DataError(
            f"{error.filename or folder.path}: {error.strerror or error}. Preparing {folder.path} needs free space and "
            "permission to read and write. Provide them, or change --data.root (and set --data.images, for a folder of "
            "images), and run the command again. Incomplete files are not used."
        ) from error


def load(data: Source) -> Prepared | None:
    """Return the images, or None if anything has changed since they were prepared. Nothing is written."""
    folder, info = data.folder, load_description(data.folder.path)
    if info is None or data.overwrite_split or info.digests != index_digests(folder.index):
        return None
    check_settings(data, info.split)
    return find_prepared(folder, info, {stage: read_index(index_path(folder.index, stage)) for stage in STAGES})


def create(data: Source) -> Prepared:
    """Create everything that is missing or outdated; called by one process at a time."""
    folder = data.folder
    data.prepare_images()
    info = load_description(folder.path)
    split = choose_split(data, info)
    known = {}  # statistics of other sizes
    if info is not None and not split.is_new:
        if info.digests != index_digests(folder.index):
            rank_zero_info(f"The index files of {folder.index} were edited. Reading all images again.")
        else:
            known = info.pixels
            if info.split == split.settings and (prepared := find_prepared(folder, info, split.entries)):
                return prepared
    for stage, part in split.entries.items() if split.is_new else ():
        check_entries(index_path(folder.index, stage), part)
    names = list(data.find_class_names(split.entries))
    key, stats = describe(folder, split.entries, names, split.settings.get("seed", 0))
    if split.is_new:
        write_split(folder.index, split.entries)
    readable = without(split.entries, stats.unreadable)
    counts = {stage: count_labels(part, names) for stage, part in readable.items()}
    digests = index_digests(folder.index)
    info = DatasetInfo(names, counts, split.settings, data.source(), digests, {**known, key: stats})
    write_description(folder.path, info)
    for note in stats.loss_notes():
        rank_zero_info(note)
    prepared = find_prepared(folder, info, split.entries)
    if prepared is None:
        raise DataError(f"The images in {folder.images} were changed while they were read. Run the command again.")
    return prepared


def index_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each index file, and of ``classes.txt``, by its name."""
    paths = [*(index_path(folder, stage) for stage in STAGES), folder / CLASSES]
    return {path.name: digest_of(path.read_bytes()) for path in paths if path.is_file()}


def check_settings(data: Source, found: dict[str, Any]) -> None:
    """Raise DataError if index files were created with other settings; those that were given may fit any settings."""
    if found != data.split_settings and not (found == GIVEN and data.folder.accepts_given):
        got = "the images are divided in another way" if found == GIVEN else f"got {found}"
        raise DataError(
            f"Expected index files in {data.folder.index} with the split {data.split_settings}, but {got}. Change "
            "--data.root, or write new index files with --data.overwrite_split true."
        )


def choose_split(data: Source, info: DatasetInfo | None) -> Split:
    """Return the split that index files define, or else a new one. Nothing is written.

    Complete index files without ``dataset.json`` are the user's, unless they equal a new split: then this project was
    interrupted before it wrote ``dataset.json``. Only some data modules accept the user's.

    Raises:
        DataError: Index files were created with other settings, or some are missing.
    """
    folder = data.folder.index
    if data.overwrite_split:
        own = data.make_split()
        return Split(data.split_settings, own, is_new=bool(find_outdated(folder, own)))
    existing = {stage: read_index(index_path(folder, stage)) for stage in STAGES if index_path(folder, stage).is_file()}
    missing = [stage for stage in STAGES if stage not in existing]
    if not missing and info is not None:
        check_settings(data, info.split)
        return Split(info.split, existing, is_new=False)
    try:
        own = data.make_split()
    except DataError:
        if missing or not data.folder.accepts_given:
            raise
        return Split(GIVEN, existing, is_new=False)
    if all(entries == own[stage] for stage, entries in existing.items()):
        return Split(data.split_settings, own, is_new=existing != own)
    if missing:
        raise DataError(
            f"Expected {', '.join(f'{stage}.txt' for stage in STAGES)} in {folder}, but {missing[0]}.txt is missing. "
            "Write it, or split the images again with --data.overwrite_split true."
        )
    check_settings(data, GIVEN)
    return Split(GIVEN, existing, is_new=False)


def find_outdated(folder: Path, entries: Entries) -> list[str]:
    """Return the stages whose index files are missing, differ from the entries, or cannot be understood."""
    outdated = []
    for stage, of_stage in entries.items():
        try:
            same = read_index(index_path(folder, stage)) == of_stage
        except DataError:
            same = False
        if not same:
            outdated.append(stage)
    return outdated


def write_split(folder: Path, entries: Entries) -> None:
    """Write the index files that are missing or differ; others, which may have been edited, become ``train.txt.old``.

    ``dataset.json`` is deleted before and written afterwards: without it, the next preparation compares the entries.
    All old files are renamed before the first new one is written, so that no kill leaves files of both splits.
    """
    (folder / FILE).unlink(missing_ok=True)
    outdated = [index_path(folder, stage) for stage in find_outdated(folder, entries)]
    for path in filter(Path.is_file, outdated):
        backups = (path.with_name(f"{path.name}.old{number or ''}") for number in itertools.count())
        path.rename(next(backup for backup in backups if not backup.exists()))
    for path in outdated:
        write_index(path, entries[path.stem])


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Create a folder, and hold its lock; wait while another process prepares it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        rank_zero_info(f"Another process is preparing {folder}. Waiting until it finishes.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
