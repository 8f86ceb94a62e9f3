"""Store index files, ``dataset.json`` and decoded images of a data folder, and keep them up to date."""

import copy
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import SHOWN, DataError, first_few
from datamodules.preparation.cache import Scan, cache_path, fingerprint, open_cache, scan
from datamodules.preparation.dataset_info import FILE, DatasetInfo, PixelStats, load_description, write_description
from datamodules.preparation.index import STAGES, Entry, count_labels, digest_of, index_path, line_of, read_index
from datamodules.preparation.statistics import Sums, channel_mean_std
from datamodules.reading.decode import Resize, read_rgb
from datamodules.reading.read_images import paths_of

CLASSES = "classes.txt"  # names of the classes, one per line, where folders do not name them
Entries = dict[str, list[Entry]]  # by stage


class ImageStore:
    """The images that the index files of a folder list, at one size.

    Args:
        root: Folder of the cache of decoded images.
        folder: Folder of the index files and ``dataset.json``.
        size: Side in pixels to which images are resized; None if they all have the size of the first image.
        resize: How images are resized.
        keep: Whether to cache decoded images on disk.
        skip: Whether to exclude unreadable images instead of raising an error.

    Attributes:
        base: Folder to which paths in index files are relative.
    """

    def __init__(self, root: Path, folder: Path, size: int | None, resize: Resize, keep: bool, skip: bool) -> None:
        self.root = root
        self.base = root
        self.folder = folder
        self.resize: Resize | None = None if size is None else resize
        self.keep = keep
        self.skip = skip
        self._size = size
        self._listed: tuple[dict[str, str], Entries] | None = None
        self._files: list[str] = []

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        assert self._size is not None, "load and describe set it"
        return self._size

    @property
    def key(self) -> str:
        """Key of this size and resize mode in ``dataset.json``."""
        return str(self._size) if self.resize is None else f"{self._size} {self.resize}"

    def index(self, stage: str) -> Path:
        """Return the path of the index file of a stage."""
        return index_path(self.folder, stage)

    def listed(self) -> Entries:
        """Return the entries of the index files."""
        digests = self.digests()
        if self._listed is None or self._listed[0] != digests:  # parsing dominates the time of a warm start
            self._listed = digests, {stage: read_index(self.index(stage)) for stage in STAGES}
            self._files = sorted({file for entries in self._listed[1].values() for file, _ in entries})
        return self._listed[1]

    def at(self, folder: Path) -> "ImageStore":
        """Return a copy of this store with index files in another folder."""
        other = copy.copy(self)
        other.folder, other._listed = folder, None
        return other

    def files(self) -> list[str]:
        """Return all files in the index files, each once, sorted."""
        self.listed()
        return self._files

    def digests(self) -> dict[str, str]:
        """Return the digest of each index file, and of ``classes.txt``, by its name."""
        paths = [*map(self.index, STAGES), self.root / CLASSES]
        return {path.name: digest_of(path.read_bytes()) for path in paths if path.is_file()}

    def readable(self, description: DatasetInfo) -> Entries:
        """Return the entries of the index files without unreadable images."""
        bad = description.pixels[self.key].unreadable
        if not bad:
            return self.listed()
        return {stage: [entry for entry in entries if entry[0] not in bad] for stage, entries in self.listed().items()}

    def is_described_by(self, description: DatasetInfo) -> bool:
        """Return whether the index files are unchanged since the description was written."""
        return description.digests == self.digests()

    def load(self, settings: dict[str, Any]) -> DatasetInfo | None:
        """Return the description of this folder, or None if anything in it has changed.

        Raises:
            DataError: An image is unreadable, and ``skip`` is False.
        """
        info = load_description(self.folder)
        if info is None or info.split != settings or not self.is_described_by(info):
            return None
        listed = self.listed()
        files = self.files()
        self._find_size(files)
        pixels = info.pixels.get(self.key)
        if pixels is None or (self.keep and self.open(info) is None):  # before the files, which take longer to check
            return None
        if pixels.fingerprint != fingerprint(self.base, files, self.size, self.resize):
            return None
        if not pixels.digest and os.access(self.folder, os.W_OK):  # by an earlier version: read images again
            return None
        self._check_readable(pixels.unreadable, listed)
        self._report_missing(info.counts, pixels)
        return info

    def describe(
        self, settings: dict[str, Any], source: dict[str, Any], name_classes: Callable[[Entries], Sequence[str]]
    ) -> DatasetInfo:
        """Read all images once, cache them decoded, and write ``dataset.json``.

        Raises:
            DataError: The index files or an image are invalid.
        """
        listed = self.listed()
        for stage, entries in listed.items():
            if not entries:
                raise DataError(f"Expected images in {self.index(stage)}, but got none. Add some, or change the split.")
        names = list(name_classes(listed))
        if len(names) < 2:
            raise DataError(f"Expected at least two classes in {self.root}, but got {', '.join(names) or 'none'}.")
        files = self.files()
        self._find_size(files)
        key = fingerprint(self.base, files, self.size, self.resize)
        keep_at = cache_path(self.root, self.size, self.resize, key) if self.keep else None
        result = scan(self.base, files, self.size, self.resize, keep_at)
        unreadable = {files[row]: str(error) for row, error in sorted(result.unreadable.items())}
        entries_of = {
            stage: [entry for entry in entries if entry[0] not in unreadable] for stage, entries in listed.items()
        }
        counts = {stage: count_labels(entries, names) for stage, entries in entries_of.items()}
        self._check_any_readable(names, unreadable)
        self._check_readable(unreadable, listed)
        if empty := [name for name, count in counts["train"].items() if count == 0]:
            raise DataError(
                f"Expected training images of each class, but {self.index('train')} lists none of {first_few(empty)}. "
                "Labels count from 0 without gaps: add images, or remove the class."
            )
        row_of = {file: row for row, file in enumerate(files)}
        train = [row_of[file] for file, _ in entries_of["train"]]
        mean, std = channel_mean_std(Sums(result.sums.values[train], result.sums.squares[train]), self.size**2)
        losses = {loss: [len(rows), files[rows[0]]] for loss, rows in result.losses.items()}
        digest = hashlib.sha256(b"".join(result.digests)).hexdigest()
        pixels = PixelStats(key, mean, std, unreadable, find_identical(entries_of, result, row_of), losses, digest)
        known = load_description(self.folder)
        others = known.pixels if known is not None and self.is_described_by(known) else {}
        description = DatasetInfo(names, counts, settings, source, self.digests(), {**others, self.key: pixels})
        write_description(self.folder, description)
        self._report_missing(counts, pixels)
        if pixels.identical:
            rank_zero_info(
                f"{len(pixels.identical)} images are in more than one of train, val and test (identical pixels at "
                f"{self.size}x{self.size}), for example {' and '.join(pixels.identical[0][:2])}. "
                f"{self.folder / FILE} lists them."
            )
        return description

    def open(self, description: DatasetInfo) -> np.ndarray | None:
        """Return the decoded images, uint8 ``(N, 3, size, size)``, in the order of ``files``, or None."""
        return open_cache(self.cache_of(description), len(self.files()), self.size)

    def cache_of(self, description: DatasetInfo) -> Path:
        """Return the path of the decoded images."""
        return cache_path(self.root, self.size, self.resize, description.pixels[self.key].fingerprint)

    def _find_size(self, files: Sequence[str]) -> None:
        if self._size is not None:
            return
        problems = []
        for first in paths_of(self.base, files):
            try:
                height, width, _ = read_rgb(first).shape
                break
            except DataError as error:
                if not self.skip:
                    raise
                problems.append(error)
        else:
            raise DataError(
                f"Expected readable images in {self.base}, but none of {len(files)} can be read. First problem: "
                f"{problems[0]}"
            )
        if height != width:
            raise DataError(
                f"Expected square images, but {first} has {width}x{height} pixels. Set --data.image_size to resize "
                "all images."
            )
        self._size = height

    def _check_any_readable(self, names: Sequence[str], unreadable: dict[str, str]) -> None:
        """Raise DataError if none of the images of a stage, or of a class of train, can be read."""
        groups = defaultdict(list)
        for stage, entries in self.listed().items() if unreadable else ():
            for file, label in entries:
                groups[f"in {self.index(stage)}"].append(file)
                if stage == "train":
                    groups[f"of {names[label]} in {self.index(stage)}"].append(file)
        for place, files in groups.items():
            if unreadable.keys() >= set(files):
                raise DataError(
                    f"Expected readable images {place}, but none of {len(files)} can be read. First problem: "
                    f"{unreadable[files[0]]}"
                )

    def _check_readable(self, unreadable: dict[str, str], listed: Entries) -> None:
        if not unreadable or self.skip:
            return
        file, reason = next(iter(unreadable.items()))
        index = self.index(next(stage for stage, entries in listed.items() if file in dict(entries)))
        more = f" {len(unreadable) - 1} more images are unreadable." if len(unreadable) > 1 else ""
        raise DataError(
            f"{reason} ({index}:{line_of(index, file)}){more} Or exclude them with --data.on_bad_image skip."
        )

    def _report_missing(self, counts: dict[str, dict[str, int]], pixels: PixelStats) -> None:
        """Report unreadable images, and classes without images in val or test."""
        if pixels.unreadable:
            examples = " ".join(list(pixels.unreadable.values())[:SHOWN])
            rank_zero_info(
                f"{len(pixels.unreadable)} unreadable images are excluded ({self.folder / FILE} lists them): {examples}"
            )
        for stage in STAGES[1:]:
            names = {label: name for label, (name, count) in enumerate(counts[stage].items()) if count == 0}
            if not names:
                continue
            files = [file for file, label in self.listed()[stage] if label in names]
            cause = f", because {len(files)} images cannot be read, for example {files[0]}" if files else ""
            rank_zero_info(
                f"{self.index(stage)} has no images of {len(names)} of {len(counts[stage])} classes "
                f"({first_few([*names.values()])}){cause}. {stage} metrics do not include them."
            )


def find_identical(entries: Entries, result: Scan, row_of: dict[str, int]) -> list[list[str]]:
    """Return groups of files with identical pixels that are in more than one stage."""
    groups: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for stage, listed in entries.items():
        for file, _ in listed:
            groups[result.digests[row_of[file]]].append((stage, file))
    return [[file for _, file in group] for group in groups.values() if len({stage for stage, _ in group}) > 1]
