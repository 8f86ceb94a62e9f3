"""Images of your own: one folder per class, or index files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities import rank_zero_info

from datamodules.base import ImageDataModule
from datamodules.errors import DataError
from datamodules.preparation.dataset_info import load_description
from datamodules.preparation.describe import Prepared
from datamodules.preparation.index import STAGES, Entries, index_path
from datamodules.preparation.layout import divide_folder
from datamodules.preparation.prepare_folder import CLASSES, GIVEN
from datamodules.preparation.split import Fractions, check_fractions
from datamodules.reading.files import relative_files

FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # defaults of a new split


class FolderDataModule(ImageDataModule):
    """Images of any size and format in a folder, to which nothing is written.

    The split is defined by the first of these that exists:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` per line, used unchanged. Paths are
      absolute, or relative to the folder of the images. Class names are read from ``classes.txt`` (one per line), or
      else from the folders of the images.
    - Index files of an earlier run in ``root_prepared``; you may edit them.
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
        image_size: Side in pixels to which all images are resized; None if they all have the same size.
        **kwargs: See ``ImageDataModule``.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        fractions: Fractions | None = None,
        split_seed: int | None = None,
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
        before = info.split if info is not None else {}
        self.fractions = fractions or before.get("fractions", FRACTIONS)
        self.split_seed = before.get("seed", SPLIT_SEED) if split_seed is None else split_seed
        check_fractions(self.fractions)

    @property
    def split_settings(self) -> dict[str, Any]:
        """Fractions and seed of the split."""
        return {"fractions": list(self.fractions), "seed": self.split_seed}

    def make_split(self) -> Entries:
        """Split the images by the names of their folders and by ``fractions``."""
        return divide_folder(self.images, self.fractions, self.split_seed)

    def find_class_names(self, entries: Entries) -> Sequence[str]:
        """Return the names in ``classes.txt``, or else those of the folders that hold the images of each label."""
        path = self.folder.index / CLASSES
        if not path.is_file():
            return name_labels(entries)
        names = [line.strip() for line in path.read_text("utf-8-sig", "replace").split("\n") if line.strip()]
        if len(set(names)) < len(names):
            raise DataError(f"Expected each name once in {path}, but got {', '.join(names)}.")
        return names

    def source(self) -> dict[str, Any]:
        return {"name": "folder", "images": str(self.images)}

    @property
    def prepared(self) -> Prepared:
        """The prepared images; see ``prepare_data``."""
        if self._prepared is None:
            if not self.images.is_dir():
                raise DataError(f"Expected a folder of images, but {self.images} does not exist, or is a file.")
            prepared = super().prepared
            if prepared.split != GIVEN:
                self._report_unused(prepared)
        return super().prepared

    # Helpers

    def _report_unused(self, prepared: Prepared) -> None:
        """Report files that are in no index file: new images, images outside class folders, and other files."""
        used = set(prepared.files)
        unused = [file for file in relative_files(self.images, self.images) if file not in used]
        if unused := [file for file in unused if not file.endswith(".txt")]:
            rank_zero_info(
                f"{len(unused)} files in {self.images} are not used, for example {unused[0]}: they are in no class "
                "folder, no images, or new. --data.overwrite_split true adds new ones; `predict` classifies any image."
            )


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
