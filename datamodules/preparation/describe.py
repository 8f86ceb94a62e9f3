"""Read all images of a split once, check them, and describe them for ``dataset.json``."""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import SHOWN, DataError, ImageError, first_few
from datamodules.preparation.cache import cache_path, fingerprint, is_cached, scan
from datamodules.preparation.dataset_info import FILE, DatasetInfo, PixelStats
from datamodules.preparation.index import STAGES, Entries, count_labels, digest_of, text_of
from datamodules.preparation.split import fold_of
from datamodules.preparation.statistics import channel_mean_std
from datamodules.reading.decode import Resize, read_rgb
from datamodules.reading.read_images import paths_of


@dataclasses.dataclass
class DataFolder:
    """Where the files of a dataset are, and how its images are read."""

    path: Path  # folder of ``dataset.json`` and the cache
    size: int | None  # side in pixels to which images are resized; None if they all have that of the first image
    resize: Resize | None  # how images are resized; None if ``size`` is None
    cached: bool  # whether decoded images are cached on disk
    skip: bool  # whether unreadable images are excluded instead of raising an error
    folds: int | None
    fold: int  # index of the fold that is held out for validation
    channels: int = 3  # to which images are converted

    def __post_init__(self) -> None:
        self.images = self.path  # folder to which paths in index files are relative
        self.index = self.path  # folder of the index files
        self.caches_train = True  # whether decoded images of train are cached, not only those of val and test
        self.accepts_given = False  # whether index files that this project did not write may define the split
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

    def rows(self, entries: Entries) -> list[str]:
        """Return the files that are cached, sorted, of all entries of the fold."""
        return files_of(entries if self.caches_train else {stage: entries[stage] for stage in STAGES[1:]})

    def cache(self, size: int, fingerprint: str, rows: Sequence[str]) -> Path | None:
        """Return the path of the cache of some files, or None without one."""
        if not self.cached:
            return None
        part = ""
        if not self.caches_train:  # another split has other rows
            part = f"-without-train{self._fold()}".replace(" ", "-")
            fingerprint = digest_of("\n".join([fingerprint, *rows]).encode())[:32]
        return cache_path(self.path, size, self.resize, fingerprint, self.channels, part)

    def _fold(self) -> str:
        return "" if self.folds is None else f" fold {self.fold} of {self.folds}"

    def key(self, size: int) -> str:
        """Return the key of this size, resize mode, number of channels and fold in ``dataset.json``."""
        channels = "" if self.channels == 3 else f"{self.channels} channels "
        return channels + (str(size) if self.resize is None else f"{size} {self.resize}") + self._fold()


class Prepared(NamedTuple):
    """Images that can be loaded."""

    folder: DataFolder
    class_names: list[str]
    entries: Entries  # by stage, of the fold, without unreadable images
    files: list[str]  # all files in index files, sorted
    rows: list[str]  # the files whose pixels are in the cache, in its order
    size: int  # side in pixels
    stats: PixelStats
    cache: Path | None  # decoded images, uint8 ``(N, C, size, size)``
    split: dict[str, object]  # settings of the split
    digests: dict[str, str]  # SHA-256 of the index files

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        return {stage: count_labels(part, self.class_names) for stage, part in self.entries.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of index files, class names, mean and std, and of the pixels of train, val and test."""
        key = dataclasses.replace(self.folder, folds=None).key(self.size)
        facts = [self.digests, self.class_names, key, self.stats.mean, self.stats.std, self.stats.digest]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def find_prepared(folder: DataFolder, info: DatasetInfo, listed: Entries) -> Prepared | None:
    """Return the images that ``dataset.json`` describes, or None if one has changed or the cache is missing."""
    files = files_of(listed)
    size = find_size(folder, files)
    stats = info.pixels.get(folder.key(size))
    if stats is None:
        return None
    entries = folder.divide(listed, info.split.get("seed", 0))
    rows = folder.rows(entries)
    cache = folder.cache(size, stats.fingerprint, rows)
    if cache is not None and not is_cached(cache, len(rows), size, folder.channels):
        return None
    if stats.fingerprint != fingerprint(folder.images, files, size, folder.resize, folder.channels):
        return None
    if stats.unreadable and not folder.skip:
        first, *others = stats.unreadable.values()
        more = f" {len(others)} more images are unreadable." if others else ""
        raise DataError(f"{first}{more} Or exclude such images with --data.on_bad_image skip.")
    texts = {} if folder.folds is None else {f"{stage}.txt": text_of(part) for stage, part in entries.items()}
    digests = info.digests | {name: digest_of(text) for name, text in texts.items()}
    entries = without(entries, stats.unreadable)
    prepared = Prepared(folder, info.class_names, entries, files, rows, size, stats, cache, info.split, digests)
    report_missing(prepared)
    return prepared


def describe(folder: DataFolder, listed: Entries, names: list[str], seed: int) -> tuple[str, PixelStats]:
    """Read all images once, cache them decoded, and return the key and value of their statistics."""
    entries = folder.divide(listed, seed)
    check_complete(folder, entries, names, {})
    files = files_of(listed)
    size = find_size(folder, files)
    key = fingerprint(folder.images, files, size, folder.resize, folder.channels)
    rows = folder.rows(entries)
    cached = set(rows)
    kept = None if folder.caches_train else [file in cached for file in files]
    result = scan(folder.images, files, size, folder.resize, folder.cache(size, key, rows), folder.channels, kept)
    entries = without(entries, result.unreadable)
    check_complete(folder, entries, names, result.unreadable)
    row_of = {file: row for row, file in enumerate(files)}
    mean, std = channel_mean_std(result.sums[[row_of[file] for file, _ in entries["train"]]], size**2)
    groups: dict[bytes, list[tuple[str, str]]] = defaultdict(list)  # of identical images
    for stage, file in [(stage, file) for stage, part in entries.items() for file, _ in part]:
        groups[result.digests[row_of[file]]].append((stage, file))
    across = [group for group in groups.values() if len({stage for stage, _ in group}) > 1]
    identical = [[file for _, file in group] for group in across]
    if identical:
        rank_zero_info(
            f"{len(identical)} images are in more than one of train, val and test (identical pixels at {size}x{size}), "
            f"for example {' and '.join(identical[0][:2])}. {folder.path / FILE} lists them."
        )
    losses = {loss: [len(affected), affected[0]] for loss, affected in result.losses.items()}
    digest = hashlib.sha256(b"".join(result.digests)).hexdigest()
    return folder.key(size), PixelStats(key, mean, std, result.unreadable, identical, losses, digest)


def verify(prepared: Prepared, before: DatasetInfo | None) -> None:
    """Read all image files again; raise DataError if their pixels are not those that ``dataset.json`` describes.

    ``before`` is its content before the preparation; None if there was none.
    """
    folder = prepared.folder
    known = (before.pixels if before else {}).get(folder.key(prepared.size), prepared.stats)
    result = scan(folder.images, prepared.files, prepared.size, folder.resize, None, folder.channels)
    if hashlib.sha256(b"".join(result.digests)).hexdigest() != known.digest:
        raise DataError(
            f"Expected the pixels that {folder.path / FILE} describes, but files in {folder.images} have changed. If "
            "that was intended, they are used from now on; otherwise, restore them."
        )


def files_of(entries: Entries) -> list[str]:
    """Return all files in index files, each once, sorted."""
    return sorted({file for part in entries.values() for file, _ in part})


def find_size(folder: DataFolder, files: list[str]) -> int:
    """Return the size of a folder, or else the side in pixels of the first readable image, which must be square."""
    if folder.size is not None:
        return folder.size
    paths = paths_of(folder.images, files)
    for path in paths:
        try:
            height, width, _ = read_rgb(path, channels=folder.channels).shape
            break
        except ImageError:
            if not folder.skip or path == paths[-1]:
                raise
    if height != width:
        raise DataError(f"Expected square images, but {path} has {width}x{height} pixels. Set --data.image_size.")
    return height


def without(entries: Entries, unreadable: dict[str, str]) -> Entries:
    """Return entries without those of unreadable files."""
    return {stage: [entry for entry in part if entry[0] not in unreadable] for stage, part in entries.items()}


def check_complete(folder: DataFolder, entries: Entries, names: list[str], unreadable: dict[str, str]) -> None:
    """Raise DataError if a stage, or a class of train, has no images, or if there are fewer than two classes."""
    empty = [f"{stage} of {folder.path}" for stage, part in entries.items() if not part]
    empty += [name for name, count in count_labels(entries["train"], names).items() if count == 0]
    for stage in STAGES[1:]:
        count_labels(entries[stage], names)
    if empty:
        first = f" First problem: {next(iter(unreadable.values()))}" if unreadable else ""
        raise DataError(
            f"Expected readable images in train, val and test, and of each class in train, but got none of "
            f"{first_few(empty)}. Add images, or remove the class: labels count from 0 without gaps.{first}"
        )
    if len(names) < 2:
        raise DataError(f"Expected at least two classes in {folder.images}, but got {', '.join(names)}.")


def report_missing(prepared: Prepared) -> None:
    """Report unreadable images, and classes without images in val or test."""
    path, unreadable = prepared.folder.path, prepared.stats.unreadable
    if unreadable:
        first = " ".join(list(unreadable.values())[:SHOWN])
        rank_zero_info(f"{len(unreadable)} unreadable images are excluded ({path / FILE} lists them): {first}")
    for stage, counts in prepared.counts.items():
        if names := [name for name, count in counts.items() if count == 0]:
            rank_zero_info(
                f"{stage} of {path} has no images of {len(names)} of {len(counts)} classes ({first_few(names)}). "
                f"{stage} metrics do not include them."
            )
