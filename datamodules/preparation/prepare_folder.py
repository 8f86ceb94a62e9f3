"""Prepare the images, index files, ``dataset.json`` and cache of a data folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from atomic_files import write_atomically
from datamodules.errors import DataError
from datamodules.preparation.dataset_info import DatasetInfo, load_description, write_description
from datamodules.preparation.describe import DataFolder, Prepared, describe, find_prepared, without
from datamodules.preparation.index import (
    CLASSES,
    STAGES,
    Entries,
    check_names,
    count_labels,
    digest_of,
    index_path,
    read_index,
    text_of,
)

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
    settings, entries, is_new = choose_split(data, info)
    names = list(data.find_class_names(entries))
    new = {index_path(folder.index, stage): text_of(part) for stage, part in entries.items()} if is_new else {}
    if new and folder.accepts_given:  # first, because index files without it would give other names
        new = {folder.index / CLASSES: "".join(f"{name}\n" for name in names).encode()} | new
    digests = index_digests(folder.index, new)
    known = info.pixels if info is not None and info.digests == digests else {}  # of other sizes and folds
    prepared = None
    if info is not None and known and info.split == settings:
        prepared = find_prepared(folder, info, entries)
    elif info is not None and not new:
        rank_zero_info(f"The index files of {folder.index} were edited. Reading all images again.")
    if info is None or prepared is None:
        key, stats = describe(folder, entries, names, settings.get("seed", 0))
        info = DatasetInfo(names, {}, settings, data.source(), digests, known | {key: stats})
        for note in stats.loss_notes():
            rank_zero_info(note)
        prepared = find_prepared(folder, info, entries)
    if prepared is None:
        raise DataError(f"The images in {folder.images} were changed while they were read. Run the command again.")
    changed = [path for path, text in new.items() if path.is_file() and path.read_bytes() != text]  # or edited
    for path in reversed(new):
        if path in changed or (changed and path.name != CLASSES and path.is_file()):
            path.replace(path.with_name(f"{path.name}.old"))
    listed = without(entries, prepared.stats.unreadable)  # of all folds
    counts = {stage: count_labels(part, names) for stage, part in listed.items()}
    write_description(folder.path, dataclasses.replace(info, counts=counts))
    for path, text in new.items():
        with write_atomically(path) as partial:
            partial.write_bytes(text)
    return prepared


def choose_split(data: Source, info: DatasetInfo | None) -> tuple[dict[str, Any], Entries, bool]:
    """Return the settings and entries of the split, and whether its index files must be written.

    Complete index files without ``dataset.json`` are the user's, unless the data is split into the same ones.
    """
    folder = data.folder
    paths = {stage: index_path(folder.index, stage) for stage in STAGES}
    existing = {stage: path for stage, path in paths.items() if path.is_file()}
    if existing == paths and not data.overwrite_split:
        given = {stage: read_index(path) for stage, path in paths.items()}
        if info is not None or folder.index != folder.path or not is_own_split(data, given):
            settings = GIVEN if info is None else info.split
            check_settings(data, settings)
            return settings, given, False
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
    return data.split_settings, entries, True


def is_own_split(data: Source, given: Entries) -> bool:
    """Return whether index files are those into which the data is split."""
    try:
        return data.make_split() == given
    except DataError:
        return False


def check_settings(data: Source, found: dict[str, Any]) -> None:
    """Raise DataError if index files were created with other settings; those that were given may fit any settings."""
    tables = found.get("tables", {}) | data.split_settings.get("tables", {})
    if "tables" in found and tables != found["tables"]:
        raise DataError(
            f"Expected {', '.join(tables)} as when {data.folder.index} was written, but got other content. Split the "
            "images again with --data.overwrite_split true."
        )
    if found != data.split_settings and not (found == GIVEN and data.folder.accepts_given):
        got = "dataset.json is missing" if found == GIVEN else f"got {found}"
        raise DataError(
            f"Expected index files in {data.folder.index} with the split {data.split_settings}, but {got}. Change "
            "--data.root, or write new index files with --data.overwrite_split true."
        )


def index_digests(folder: Path, new: Mapping[Path, bytes]) -> dict[str, str]:
    """Return the digest of each index file and of ``classes.txt``, in the folder or new, by its name."""
    paths = [*(index_path(folder, stage) for stage in STAGES), folder / CLASSES]
    contents = {path: path.read_bytes() for path in paths if path.is_file()} | dict(new)
    return {path.name: digest_of(contents[path]) for path in paths if path in contents}
