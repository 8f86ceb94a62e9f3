"""Images of your own: one folder per class, CSV files, or index files."""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities import rank_zero_info

from datamodules.base import ImageDataModule
from datamodules.errors import DataError
from datamodules.preparation.dataset_info import load_description
from datamodules.preparation.describe import Prepared
from datamodules.preparation.index import CLASSES, STAGES, Entries, digest_of, index_path, read_classes
from datamodules.preparation.layout import divide_folder
from datamodules.preparation.prepare_folder import GIVEN
from datamodules.preparation.split import Fractions, check_fractions
from datamodules.preparation.tables import divide_tables, find_tables
from datamodules.reading.files import is_image, relative_files

FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # defaults of a new split


class FolderDataModule(ImageDataModule):
    """Images of any size and format in a folder, to which nothing is written.

    The split is defined by the first of these that exists:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` per line, used unchanged. Paths are
      absolute, or relative to the folder of the images. Class names are read from ``classes.txt`` (one per line), or
      else from the folders of the images.
    - Index files and ``classes.txt`` of an earlier run in ``root_prepared``; you may edit them.
    - ``train.csv``, and ``val.csv`` and ``test.csv`` next to it if there are any, or ``labels.csv``, with a path and a
      label per line; see ``divide_tables``. ``classes.txt`` next to it sets the order of the classes.
    - ``root/train/<class>/...``, with ``val`` and ``test`` next to ``train``; a missing one is split off from train.
      Names such as ``Training``, ``valid`` and ``test_set`` are recognised.
    - ``root/<class>/...``, split by ``fractions``.

    Each may be nested in folders that contain only one folder.

    Args:
        root: Folder of the images. Index files, ``dataset.json`` and decoded images are written next to it:
            ``my_images_prepared`` for ``my_images``.
        images: Folder of the images, if ``root`` is another folder for these files.
        fractions: Fractions of train, val and test; by default those of the existing split, or 0.8, 0.1 and 0.1.
        split_seed: Seed of the split; by default that of the existing split, or 666.
        csv_columns: Names of the columns of paths and labels in CSV files, if they are not usual ones.
        image_size: Side in pixels to which all images are resized; None if they all have the same size.
        **kwargs: See ``ImageDataModule``.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        fractions: Fractions | None = None,
        split_seed: int | None = None,
        csv_columns: tuple[str, str] | None = None,
        image_size: PositiveInt | None = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, image_size=image_size, **kwargs)
        self.images = self.folder.images = Path(root if images is None else images)
        self.folder.accepts_given = True
        if self.images.resolve() == self.root.resolve():
            self.folder.path = self.folder.index = Path(f"{os.path.abspath(root)}_prepared")
            if any(index_path(self.images, stage).is_file() for stage in STAGES):
                self.folder.index = self.images
        info = load_description(self.folder.path)
        self.before = info.split if info is not None else {}
        self.fractions = fractions or self.before.get("fractions", FRACTIONS)
        self.split_seed = self.before.get("seed", SPLIT_SEED) if split_seed is None else split_seed
        self.csv_columns = csv_columns or self.before.get("tables", {}).get("--data.csv_columns")
        self.split: tuple[Entries, list[str]] | None = None  # a new one, with the name of each label
        check_fractions(self.fractions)

    @cached_property
    def tables(self) -> dict[str, Path]:
        """The CSV file of each stage; empty if folders define the split."""
        return find_tables(self.root) or find_tables(self.images)

    @property
    def split_settings(self) -> dict[str, Any]:
        """Fractions and seed of the split, and the digests of CSV files that define it."""
        settings = {"fractions": list(self.fractions), "seed": self.split_seed}
        files = [*self.tables.values(), *{path.with_name(CLASSES) for path in self.tables.values()}]
        digests: dict[str, Any] = {path.name: digest_of(path.read_bytes())[:16] for path in files if path.is_file()}
        if digests and self.csv_columns:
            digests["--data.csv_columns"] = list(self.csv_columns)
        tables = digests or self.before.get("tables")  # the CSV files may be gone
        return settings | ({"tables": tables} if tables else {})

    def make_split(self) -> Entries:
        """Split the images by CSV files or the names of their folders, and by ``fractions``."""
        how = self.fractions, self.split_seed
        if self.tables:
            self.split = divide_tables(self.tables, self.images, *how, self.csv_columns, self.folder.skip)
        else:
            entries = divide_folder(self.images, *how)
            self.split = entries, name_labels(entries)
        return self.split[0]

    def find_class_names(self, entries: Entries) -> Sequence[str]:
        """Return the names of a new split, those in ``classes.txt``, or those of the folders of each label's images."""
        if self.split is not None and self.split[0] == entries:
            return self.split[1]
        return read_classes(self.folder.index / CLASSES) or name_labels(entries)

    def source(self) -> dict[str, Any]:
        return {"name": "folder", "images": str(self.images)}

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            if not self.images.is_dir():
                raise DataError(f"Expected a folder of images, but {self.images} does not exist, or is a file.")
            prepared = super().prepared
            if prepared.split != GIVEN:
                self._report_unused(prepared)
        return super().prepared

    # Helpers

    def _report_unused(self, prepared: Prepared) -> None:
        """Report files that are in no index file: new images, images without a label, and other files."""
        used = set(prepared.files)
        unused = [file for file in relative_files(self.images, self.images) if file not in used]
        unused = [file for file in unused if not file.endswith((".txt", ".csv", ".tsv"))]
        new = set[str]()
        if any(map(is_image, unused)) and not self.tables:
            with suppress(DataError):  # there may be no class folders any more
                split = divide_folder(self.images, self.fractions, self.split_seed)
                new = {file for part in split.values() for file, _ in part}
        reasons = {
            "they are new. --data.overwrite_split true adds them": [file for file in unused if file in new],
            "they have no label (class folder, or line of a CSV file). `predict` classifies them": [
                file for file in unused if file not in new and is_image(file)
            ],
            "they are not images that can be read": [file for file in unused if not is_image(file)],
        }
        for reason, files in reasons.items():
            if files:
                rank_zero_info(f"{len(files)} files in {self.images} are not used, for example {files[0]}: {reason}.")


def name_labels(entries: Entries) -> list[str]:
    """Return the names of the folders that hold the images of each label, or else the labels."""
    places = {(tuple(file.split("/")[:-1]), label) for part in entries.values() for file, label in part}
    count = max((label for _, label in places), default=-1) + 1
    depth = min((len(folders) for folders, _ in places), default=0)
    for level in (*range(depth), -1) if depth else ():  # from the top; then the last
        pairs = {(label, folders[level]) for folders, label in places}
        if len(pairs) == len({name for _, name in pairs}) == count:
            return [name for _, name in sorted(pairs)]
    return [str(label) for label in range(count)]
