"""Prepare the images, index files, ``dataset.json`` and cache of a data folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import DataError
from datamodules.preparation.dataset_info import DatasetInfo, load_description, write_description
from datamodules.preparation.describe import DataFolder, Prepared, describe, find_prepared
from datamodules.preparation.index import (
    STAGES,
    Entries,
    check_names,
    digest_of,
    index_path,
    read_index,
    text_of,
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


def prepare(data: Source) -> Prepared:
    """Return the images of a data module, after creating everything that is missing or outdated.

    Safe to call from several processes at once, and again after a kill at any moment: ``dataset.json`` holds the
    digests of the index files, and is written before those of a new split, after the old ones were set aside.

    Raises:
        DataError: The images are not available, or index files with other split settings exist.
    """
    folder = data.folder
    try:
        if prepared := load(data):
            return prepared
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.path / ".lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            rank_zero_info(f"Another process is preparing {folder.path}. Waiting until it finishes.")
            lock.acquire()
        try:
            return load(data) or create(data)
        finally:
            lock.release()
    except OSError as error:
        raise DataError(
            f"{error.filename or folder.path}: {error.strerror or error}. Preparing {folder.path} needs space and "
            "permission to read and write: provide them, or change --data.root (and set --data.images to your images)."
        ) from error


def load(data: Source) -> Prepared | None:
    """Return the images, or None if anything has changed since they were prepared. Nothing is written."""
    folder, info = data.folder, load_description(data.folder.path)
    if info is None or data.overwrite_split or info.digests != index_digests(folder.index, {}):
        return None
    check_settings(data, info.split)
    return find_prepared(folder, info, {stage: read_index(index_path(folder.index, stage)) for stage in STAGES})


def create(data: Source) -> Prepared:
    """Create everything that is missing or outdated; called by one process at a time."""
    folder = data.folder
    data.prepare_images()
    info = load_description(folder.path)
    settings, entries, new = choose_split(data, info)
    digests = index_digests(folder.index, new)
    known = info.pixels if info is not None and info.digests == digests else {}  # of other sizes and folds
    prepared = None
    if info is not None and known and info.split == settings:
        prepared = find_prepared(folder, info, entries)
    elif info is not None and not new:
        rank_zero_info(f"The index files of {folder.index} were edited. Reading all images again.")
    if info is None or prepared is None:
        names = list(data.find_class_names(entries))
        key, stats = describe(folder, entries, names, settings.get("seed", 0))
        info = DatasetInfo(names, {}, settings, data.source(), digests, known | {key: stats})
        for note in stats.loss_notes():
            rank_zero_info(note)
        prepared = find_prepared(folder, info, entries)
    if prepared is None:
        raise DataError(f"The images in {folder.images} were changed while they were read. Run the command again.")
    for path, text in ((index_path(folder.index, stage), text_of(part)) for stage, part in new.items()):
        if path.is_file() and path.read_bytes() != text:  # it may have been edited
            path.replace(path.with_name(f"{path.name}.old"))
    write_description(folder.path, dataclasses.replace(info, counts=prepared.counts))
    for stage, part in new.items():
        write_index(index_path(folder.index, stage), part)
    return prepared


def choose_split(data: Source, info: DatasetInfo | None) -> tuple[dict[str, Any], Entries, Entries]:
    """Return the settings and entries of the split, and those of its index files that must be written: all or none.

    Complete index files without ``dataset.json`` are the user's, because this project writes that first.
    """
    folder = data.folder
    paths = {stage: index_path(folder.index, stage) for stage in STAGES}
    existing = {stage: path for stage, path in paths.items() if path.is_file()}
    if existing == paths and not data.overwrite_split:
        settings = GIVEN if info is None else info.split
        check_settings(data, settings)
        return settings, {stage: read_index(path) for stage, path in paths.items()}, {}
    if folder.index != folder.path:
        raise DataError(
            f"Expected train.txt, val.txt and test.txt in {folder.index}, which define the split, and no "
            "--data.overwrite_split, because nothing is written there. Add the missing ones, or move all away."
        )
    entries = data.make_split()
    for stage, part in entries.items():
        check_names(part)
        if stage in existing and not data.overwrite_split and read_index(existing[stage]) != part:
            raise DataError(
                f"Expected train.txt, val.txt and test.txt in {folder.index}, but got only {', '.join(existing)}. "
                "Restore the others, or split the images again with --data.overwrite_split true."
            )
    return data.split_settings, entries, entries


def check_settings(data: Source, found: dict[str, Any]) -> None:
    """Raise DataError if index files were created with other settings; those that were given may fit any settings."""
    if found != data.split_settings and not (found == GIVEN and data.folder.accepts_given):
        got = "dataset.json is missing" if found == GIVEN else f"got {found}"
        raise DataError(
            f"Expected index files in {data.folder.index} with the split {data.split_settings}, but {got}. Change "
            "--data.root, or write new index files with --data.overwrite_split true."
        )


def index_digests(folder: Path, new: Entries) -> dict[str, str]:
    """Return the digest of each index file, of the folder or new, and of ``classes.txt``, by its name."""
    paths = [*(index_path(folder, stage) for stage in STAGES), folder / CLASSES]
    contents = {path.name: path.read_bytes() for path in paths if path.is_file()}
    contents |= {index_path(folder, stage).name: text_of(part) for stage, part in new.items()}
    return {path.name: digest_of(contents[path.name]) for path in paths if path.name in contents}
