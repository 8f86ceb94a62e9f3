"""Images of your own: one folder per class, or index files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.base import ImageDataModule
from datamodules.errors import DataError
from datamodules.preparation.cache import scan
from datamodules.preparation.dataset_info import load_description
from datamodules.preparation.describe import Prepared
from datamodules.preparation.index import STAGES, Entries, index_path, read_index
from datamodules.preparation.layout import divide_folder, find_images, find_others, find_stages
from datamodules.preparation.prepare_folder import CLASSES, GIVEN
from datamodules.preparation.split import Fractions, check_fractions

FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # defaults of a new split


class FolderDataModule(ImageDataModule):
    """Images of any size and format in a folder, to which nothing is written.

    The split is defined by the first of these that exists:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` per line, used unchanged. Paths are
      relative to ``root``, or else to the working directory. Class names are read from ``classes.txt`` (one per line),
      or else from the folders of the images.
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
        self.images = Path(root if images is None else images)
        if self.images.exists():  # a checkpoint can be used without the images of its run
            self._check_images()
        self.folder.images = self.images
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
        return read_classes(path) if path.is_file() else name_labels(entries)

    def source(self) -> dict[str, Any]:
        return {"name": "folder", "images": str(self.images)}

    def verify(self) -> None:
        """Read all images."""
        prepared = self.prepared
        result = scan(self.folder.images, prepared.files, prepared.size, self.folder.resize, None)
        if result.unreadable:
            first = result.unreadable[min(result.unreadable)]
            raise DataError(f"Expected readable images, but {len(result.unreadable)} are not. First problem: {first}")

    @property
    def prepared(self) -> Prepared:
        """The prepared images; see ``prepare_data``."""
        is_first = self._prepared is None
        if is_first:
            self._check_images()
            self._check_index()
            self.folder.images = self._base()
        prepared = super().prepared
        if is_first and self.folder.index != self.images and prepared.split != GIVEN:
            self._report_left_out(prepared)
        return prepared

    # Helpers

    def _check_images(self) -> None:
        if not self.images.is_dir():
            raise DataError(
                f"Expected a folder of images at --data.{'root' if self.images == self.root else 'images'}, but "
                f"{self.images} {'is a file' if self.images.exists() else 'does not exist'}."
            )

    def _check_index(self) -> None:
        """Check that nothing has to be written to the folder of the images."""
        if self.folder.index != self.images:
            return
        if missing := [stage for stage in STAGES if not index_path(self.images, stage).is_file()]:
            raise DataError(
                f"Expected train.txt, val.txt and test.txt in {self.images}, but {missing[0]}.txt is missing. Write "
                "it, or move the others away to split the images by their folders."
            )
        if self.overwrite_split:
            raise DataError(
                f"Expected no index files in {self.images} with --data.overwrite_split true, because they define the "
                "split and are not changed. Move train.txt, val.txt and test.txt away."
            )

    def _base(self) -> Path:
        """Return the folder to which paths in index files are relative; those of a new split are, to ``images``."""
        if not self.overwrite_split and index_path(self.folder.index, "train").is_file():
            files = [Path(file) for file, _ in read_index(index_path(self.folder.index, "train"))[:100]]
            # some may be missing
            if not any((self.images / file).exists() for file in files) and any(file.exists() for file in files):
                return Path()
        return self.images

    def _report_left_out(self, prepared: Prepared) -> None:
        """Report images that are not listed in index files, and files that are not images of a class."""
        try:
            stages = [find_images(folder, self.images) for folder in find_stages(self.images).values()]
        except DataError as error:  # the existing split stays valid, although a new one would be rejected
            rank_zero_warn(f"The split of {self.root} could not be created again. {error}")
            return
        images = {file for classes in stages for files in classes.values() for file in files}
        if others := find_others(self.images, images):
            rank_zero_info(
                f"{len(others)} files in {self.images} are ignored, because they are in no class folder or have no "
                f"image suffix, for example {others[0]}. `predict` can classify images in any folder."
            )
        if new := sorted(images.difference(prepared.files)):
            rank_zero_info(
                f"{len(new)} images in {self.images} are in no index file, for example {new[0]}. Split all images "
                "again with --data.overwrite_split true."
            )


def read_classes(path: Path) -> list[str]:
    """Return the names in a file, one per line.

    Raises:
        DataError: It is not UTF-8, or has a name twice.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8 in {path}, but got {error}. Save it as UTF-8.") from error
    names = [line.strip() for line in lines if line.strip()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"Expected each name once in {path}, but got {twice.pop()!r} again.")
    return names


def name_labels(entries: Entries) -> list[str]:
    """Return the names of the folders that hold the images of each label, or else the labels."""
    every = [(file.split("/"), label) for part in entries.values() for file, label in part]
    labels = range(max((label for _, label in every), default=-1) + 1)
    for level in (*range(max((len(parts) for parts, _ in every), default=1) - 1), -2):  # from the top; then the last
        names_of: dict[int, set[str]] = {label: set() for label in labels}
        for parts, label in every:
            names_of[label].add(parts[level] if level < len(parts) - 1 and len(parts) > 1 else "")
        names = [next(iter(names)) if len(names) == 1 else "" for names in names_of.values()]
        if all(names) and len(set(names)) == len(names):
            return names
    return [str(label) for label in labels]
