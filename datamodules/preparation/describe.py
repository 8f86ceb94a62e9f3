"""Read all images of a split once, check them, and describe them for ``dataset.json``."""

import dataclasses
import hashlib
import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import SHOWN, DataError, ImageError, first_few
from datamodules.preparation.cache import Scan, cache_path, fingerprint, is_cached, scan
from datamodules.preparation.dataset_info import FILE, DatasetInfo, PixelStats
from datamodules.preparation.index import STAGES, Entries, count_labels, digest_of, index_path, text_of
from datamodules.preparation.split import fold_of
from datamodules.preparation.statistics import Sums, channel_mean_std
from datamodules.reading.decode import Resize, read_rgb
from datamodules.reading.read_images import paths_of, read_images


@dataclasses.dataclass
class DataFolder:
    """Where the files of a dataset are, and how its images are read.

    Attributes:
        path: Folder of ``dataset.json`` and the cache.
        size: Side in pixels to which images are resized; None if they all have that of the first readable image.
        resize: How images are resized; None if ``size`` is None.
        cached: Whether decoded images are cached on disk.
        skip: Whether unreadable images are excluded instead of raising an error.
        folds: Number of folds, or None.
        fold: Index of the fold that is held out for validation.
        images: Folder to which paths in index files are relative; ``path`` by default.
        index: Folder of the index files; ``path`` by default.
        accepts_given: Whether index files that this project did not write may define the split; False by default.

    Raises:
        DataError: ``fold`` is not below ``folds``.
    """

    path: Path
    size: int | None
    resize: Resize | None
    cached: bool
    skip: bool
    folds: int | None
    fold: int

    def __post_init__(self) -> None:
        self.images = self.index = self.path
        self.accepts_given = False
        if self.size is None:
            self.resize = None
        if self.folds is not None and (self.folds < 2 or self.fold >= self.folds):
            raise DataError(
                f"Expected --data.folds of 2 or more, and a --data.fold below it, but got {self.folds}, {self.fold}."
            )

    def divide(self, entries: Entries, seed: int) -> Entries:
        """Return the entries of the fold: its own train and val, and the test images of all folds."""
        if self.folds is None:
            return entries
        train, val = fold_of(sorted(entries["train"] + entries["val"]), self.folds, self.fold, seed)
        return {"train": train, "val": val, "test": entries["test"]}

    def key(self, size: int) -> str:
        """Return the key of this size, resize mode and fold in ``dataset.json``."""
        fold = "" if self.folds is None else f" fold {self.fold} of {self.folds}"
        return (str(size) if self.resize is None else f"{size} {self.resize}") + fold

    def find_size(self, files: list[str]) -> int:
        """Return ``size``, or else the side in pixels of the first image; if ``skip``, of the first readable one.

        Raises:
            DataError: It is not square, or cannot be read.
        """
        if self.size is not None:
            return self.size
        *others, last = paths_of(self.images, files if self.skip else files[:1])
        for path in others:
            with suppress(ImageError):
                return side_of(path)
        return side_of(last)


class Prepared(NamedTuple):
    """Images that can be loaded."""

    folder: DataFolder
    class_names: list[str]
    entries: Entries  # by stage, of the fold, without unreadable images
    files: list[str]  # all files in index files, sorted: the rows of the cache
    size: int  # side in pixels
    stats: PixelStats
    cache: Path | None  # decoded images, uint8 ``(N, 3, size, size)``
    split: dict[str, object]  # settings of the split
    digests: dict[str, str]  # SHA-256 of the index files

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images by stage and class."""
        return {stage: count_labels(part, self.class_names) for stage, part in self.entries.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of index files, class names, mean and std, and of the pixels of train, val and test."""
        key = dataclasses.replace(self.folder, folds=None).key(self.size)
        facts = [self.digests, self.class_names, key, self.stats.mean, self.stats.std, self.stats.digest]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def training_images(self, count: int) -> np.ndarray:
        """Return about ``count`` evenly spaced training images, uint8 ``(N, 3, size, size)``."""
        entries = self.entries["train"]
        files = [file for file, _ in entries[:: -(-len(entries) // count)]]
        return read_images(paths_of(self.folder.images, files), self.size, self.folder.resize)


def side_of(path: str) -> int:
    """Return the side of an image in pixels, or raise DataError if it is not square."""
    height, width, _ = read_rgb(path).shape
    if height != width:
        raise DataError(
            f"Expected square images, but {path} has {width}x{height} pixels. Set --data.image_size to resize all "
            "images."
        )
    return height


def find_prepared(folder: DataFolder, info: DatasetInfo, listed: Entries) -> Prepared | None:
    """Return the images that ``dataset.json`` describes, or None if one has changed or the cache is missing.

    Raises:
        DataError: An image is unreadable, and ``folder.skip`` is False.
    """
    files = files_of(listed)
    size = folder.find_size(files)
    stats = info.pixels.get(folder.key(size))
    if stats is None:
        return None
    cache = cache_path(folder.path, size, folder.resize, stats.fingerprint)
    if folder.cached and not is_cached(cache, len(files), size):
        return None
    if stats.fingerprint != fingerprint(folder.images, files, size, folder.resize):
        return None
    check_readable(folder, stats.unreadable)
    entries = folder.divide(listed, info.split.get("seed", 0))
    texts = {} if folder.folds is None else {f"{stage}.txt": text_of(part) for stage, part in entries.items()}
    digests = info.digests | {name: digest_of(text.encode()) for name, text in texts.items()}
    entries = without(entries, stats.unreadable)
    prepared = Prepared(
        folder, info.class_names, entries, files, size, stats, cache if folder.cached else None, info.split, digests
    )
    report_missing(prepared)
    return prepared


def describe(folder: DataFolder, listed: Entries, names: list[str], seed: int) -> tuple[str, PixelStats]:
    """Read all images once, cache them decoded, and return the key and value of their statistics.

    Args:
        folder: Where they are, and how they are read.
        listed: Entries of the index files.
        names: Name of each label.
        seed: Seed of the folds.

    Raises:
        DataError: The entries or an image are invalid.
    """
    for stage, part in listed.items():
        if not part:
            raise DataError(
                f"Expected images in each of train, val and test, but {index_path(folder.index, stage)} lists none. "
                "Add images, or change the split."
            )
        count_labels(part, names)
    if len(names) < 2:
        raise DataError(f"Expected at least two classes in {folder.images}, but got {', '.join(names) or 'none'}.")
    files = files_of(listed)
    size = folder.find_size(files)
    key = fingerprint(folder.images, files, size, folder.resize)
    keep_at = cache_path(folder.path, size, folder.resize, key) if folder.cached else None
    result = scan(folder.images, files, size, folder.resize, keep_at)
    unreadable = {files[row]: str(error) for row, error in sorted(result.unreadable.items())}
    check_readable(folder, unreadable)
    entries = without(folder.divide(listed, seed), unreadable)
    check_not_empty(folder, entries, names, unreadable)
    row_of = {file: row for row, file in enumerate(files)}
    train = [row_of[file] for file, _ in entries["train"]]
    mean, std = channel_mean_std(Sums(result.sums.values[train], result.sums.squares[train]), size**2)
    identical = find_identical(entries, result, row_of)
    if identical:
        rank_zero_info(
            f"{len(identical)} images are in more than one of train, val and test (identical pixels at {size}x{size}), "
            f"for example {' and '.join(identical[0][:2])}. {folder.path / FILE} lists them."
        )
    losses = {loss: [len(rows), files[rows[0]]] for loss, rows in result.losses.items()}
    digest = hashlib.sha256(b"".join(result.digests)).hexdigest()
    return folder.key(size), PixelStats(key, mean, std, unreadable, identical, losses, digest)


def files_of(entries: Entries) -> list[str]:
    """Return all files in index files, each once, sorted."""
    return sorted({file for part in entries.values() for file, _ in part})


def without(entries: Entries, unreadable: dict[str, str]) -> Entries:
    """Return entries without those of unreadable files."""
    return {stage: [entry for entry in part if entry[0] not in unreadable] for stage, part in entries.items()}


def find_identical(entries: Entries, result: Scan, row_of: dict[str, int]) -> list[list[str]]:
    """Return groups of files with identical pixels that are in more than one stage."""
    groups: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for stage, part in entries.items():
        for file, _ in part:
            groups[result.digests[row_of[file]]].append((stage, file))
    return [[file for _, file in group] for group in groups.values() if len({stage for stage, _ in group}) > 1]


def check_readable(folder: DataFolder, unreadable: dict[str, str]) -> None:
    """Raise DataError if there are unreadable images that are not to be skipped."""
    if unreadable and not folder.skip:
        more = f" {len(unreadable) - 1} more images are unreadable." if len(unreadable) > 1 else ""
        raise DataError(
            f"{next(iter(unreadable.values()))}{more} Or exclude such images with --data.on_bad_image skip."
        )


def check_not_empty(folder: DataFolder, entries: Entries, names: list[str], unreadable: dict[str, str]) -> None:
    """Raise DataError if a stage, or a class of train, has no readable images."""
    first = f" First problem: {next(iter(unreadable.values()))}" if unreadable else ""
    empty = [f"{stage} of {folder.path}" for stage, part in entries.items() if not part]
    empty += [name for name, count in count_labels(entries["train"], names).items() if count == 0]
    if empty:
        raise DataError(
            f"Expected readable images in train, val and test, and of each class in train, but got none of "
            f"{first_few(empty)}. Labels count from 0 without gaps: add images, or remove the class.{first}"
        )


def report_missing(prepared: Prepared) -> None:
    """Report unreadable images, and classes without images in val or test."""
    folder, unreadable, counts = prepared.folder, prepared.stats.unreadable, prepared.counts
    if unreadable:
        rank_zero_info(
            f"{len(unreadable)} unreadable images are excluded ({folder.path / FILE} lists them): "
            f"{' '.join(list(unreadable.values())[:SHOWN])}"
        )
    for stage in STAGES[1:]:
        if names := [name for name, count in counts[stage].items() if count == 0]:
            rank_zero_info(
                f"{stage} of {folder.path} has no images of {len(names)} of {len(counts[stage])} classes "
                f"({first_few(names)}). {stage} metrics do not include them."
            )
