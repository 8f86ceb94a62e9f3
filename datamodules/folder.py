"""Your own images: a folder for each class, or index files."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities import rank_zero_info

from datamodules.decode import IMAGE_SUFFIXES
from datamodules.description import load_description
from datamodules.errors import DataError
from datamodules.files import walk
from datamodules.images import ImageDataModule
from datamodules.index import STAGES, Entry, index_path, read_index
from datamodules.split import Fractions, check_fractions, divide
from datamodules.store import CLASSES

STAGE_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
OURS = re.compile(r"cache|folds_\d+")  # folders that this project makes in a data folder
GIVEN = {"name": "given"}
FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # of a first split


class FolderDataModule(ImageDataModule):
    """Images of any size and format, as they lie in a folder.

    Takes, in this order:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` a line, used as they are. Paths are
      relative to ``root``, or else to the folder that the command was started in. Classes are named by ``classes.txt``
      (a name a line), or else by the folders of the images.
    - ``root/train/<class>/...``, and ``val`` and ``test`` beside ``train``; what is not there is taken from train.
    - ``root/<class>/...``, divided by ``fractions``.

    Whatever it was, the index files written then are the split from then on.

    Args:
        root: Data folder. Index files, ``dataset.json`` and decoded images are written there.
        images: Folder of the images, if it is another, as one that cannot be written to.
        fractions: Shares of train, val and test; by default those of the split that is there, or 0.8, 0.1 and 0.1.
        split_seed: Seed of the split; by default that of the split that is there, or 666.
        image_size: Side that all images are brought to, in pixels; None if they have one size.
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
        self.images = Path(images) if images is not None else self.root
        if self.images.exists():  # what a run has trained is of use without its images
            self._check_folder()
        # read once: a split made anew is by the same recipe, though what tells it is set aside meanwhile
        known = load_description(self.store.folder) or load_description(self.root)
        before = known.split if known is not None else {}
        self.fractions = fractions or before.get("fractions", FRACTIONS)
        self.split_seed = before.get("seed", SPLIT_SEED) if split_seed is None else split_seed
        check_fractions(self.fractions)
        self._given = self._is_given()
        self.store.base = self._base()

    @property
    def recipe(self) -> dict[str, Any]:
        """Fractions and seed of the split, or that it was given."""
        return GIVEN if self._given else {"fractions": list(self.fractions), "seed": self.split_seed}

    def source(self) -> dict[str, Any]:
        return {"name": "folder", "images": str(self.images)}

    def make_split(self) -> dict[str, list[Entry]]:
        """Return the index files that were given, or divide the images."""
        if self._given:
            for stage in STAGES:
                if not index_path(self.root, stage).is_file():
                    raise DataError(
                        f"Expected {', '.join(f'{one}.txt' for one in STAGES)} in {self.root}, but {stage}.txt is "
                        "missing. Write it, or give --data.resplit true to divide the images anew."
                    )
            return {stage: read_index(index_path(self.root, stage)) for stage in STAGES}
        return self._divide()

    def find_class_names(self, entries: dict[str, list[Entry]]) -> Sequence[str]:
        """Return the names in ``classes.txt``, or else of the folders in which images of one label lie."""
        if self._given and (self.root / CLASSES).is_file():
            lines = (self.root / CLASSES).read_text("utf-8-sig").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if twice := {name for name in names if names.count(name) > 1}:
                raise DataError(f"Expected each name once in {self.root / CLASSES}, but got {twice.pop()!r} again.")
            return names
        every = [entry for listed in entries.values() for entry in listed]
        labels = range(max(label for _, label in every) + 1)
        by_folder: list[Callable[[list[str]], str]] = [
            lambda parts: parts[0],
            lambda parts: parts[1],  # behind train/ and the like
            lambda parts: parts[-2],  # the folder of the image
        ]
        for name_of in by_folder:
            names_of: dict[int, set[str]] = {label: set() for label in labels}
            for file, label in every:
                parts = file.split("/")
                names_of[label].add(name_of(parts) if len(parts) > 1 else "")
            found = [next(iter(names)) if len(names) == 1 else "" for names in names_of.values()]
            if all(found) and len(set(found)) == len(found):
                return found
        return [str(label) for label in labels]

    def prepare_data(self) -> None:
        self._check_folder()
        first = self._description is None
        super().prepare_data()
        if first and not self._given:
            listed = set(self.store.files())
            new = [file for files in find_images(self.images).values() for file in files if file not in listed]
            if others := find_others(self.images):
                rank_zero_info(
                    f"{len(others)} files in {self.images} are passed over, as {others[0]}: they lie in no class's "
                    "folder, or have no suffix of an image that Pillow reads."
                )
            if new:
                rank_zero_info(
                    f"{len(new)} images in {self.images} are in no index file, as {new[0]}: --data.resplit true "
                    "divides all images anew."
                )

    # Helpers

    def _check_folder(self) -> None:
        if not self.images.is_dir():
            raise DataError(
                f"Expected a folder of images at --data.{'root' if self.images == self.root else 'images'}, but "
                f"{self.images} {'is a file' if self.images.exists() else 'does not exist'}."
            )

    def _is_given(self) -> bool:
        """Tell whether index files were put here by somebody else."""
        known = load_description(self.root)
        if self.resplit:
            return False
        if known is not None:
            return known.split == GIVEN
        there = [stage for stage in STAGES if index_path(self.root, stage).is_file()]
        if not there:
            return False
        try:  # those of a preparation that was killed before it wrote dataset.json are what a new one would write
            own = self._divide()
        except DataError:
            return True
        return any(read_index(index_path(self.root, stage)) != own[stage] for stage in there)

    def _base(self) -> Path:
        """Return the folder that paths in index files are relative to."""
        if self._given and index_path(self.root, "train").is_file():
            some = [Path(file) for file, _ in read_index(index_path(self.root, "train"))[:100]]  # one may be missing
            if not any((self.images / file).exists() for file in some) and any(file.exists() for file in some):
                return Path()
        return self.images

    def _divide(self) -> dict[str, list[Entry]]:
        folders = {}
        there = sorted(os.listdir(self.images))
        for stage, usual in STAGE_FOLDERS.items():
            if found := [name for name in there if name.lower() in usual and holds_folders(self.images / name)]:
                folders[stage] = found[0]
        if "train" not in folders:
            entries = label_entries(find_images(self.images), self.images)
            return dict(zip(STAGES, divide(entries, self.fractions, self.split_seed), strict=True))
        listed = {stage: find_images(self.images, name) for stage, name in folders.items()}
        names = sorted(listed["train"])
        for stage, classes in listed.items():
            if unknown := sorted(classes.keys() - set(names)):
                raise DataError(
                    f"Expected the classes of {self.images / folders['train']} ({', '.join(names)}) in "
                    f"{self.images / folders[stage]} too, but got {', '.join(unknown)}."
                )
        parts = {stage: label_entries(one, self.images / folders[stage], names) for stage, one in listed.items()}
        missing = [stage for stage in STAGES if stage not in parts]
        shares = [share for stage, share in zip(STAGES, self.fractions, strict=True) if stage in ("train", *missing)]
        divided = divide(parts["train"], [share / sum(shares) for share in shares], self.split_seed)
        return {**parts, **dict(zip(["train", *missing], divided, strict=True))}


def holds_folders(folder: Path) -> bool:
    """Tell whether there is a folder in this one: that of a stage holds classes, that of a class holds images."""
    return folder.is_dir() and any(inner.is_dir() for inner in folder.iterdir() if not inner.name.startswith("."))


def find_images(folder: Path, below: str = "") -> dict[str, list[str]]:
    """Return the image files in each class folder, as paths relative to ``folder`` in alphabetical order.

    What is hidden (".DS_Store") or has no suffix of an image is passed over.

    Args:
        folder: Data folder.
        below: Folder within it that holds the class folders.
    """
    found: dict[str, list[str]] = {}
    with os.scandir(folder / below) as places:
        classes = sorted(place.name for place in places if place.is_dir() and not place.name.startswith("."))
    for name in classes:
        files = []
        for here, names in walk(folder / below / name):
            relative = Path(here).relative_to(folder).as_posix()
            files += [f"{relative}/{one}" for one in names if os.path.splitext(one)[1].lower() in IMAGE_SUFFIXES]
        if files or not OURS.fullmatch(name):
            found[name] = sorted(files)
    return found


def find_others(folder: Path) -> list[str]:
    """Return the files, but hidden ones and ours, that ``find_images`` passes over, as paths relative to ``folder``."""
    others = []
    for here, inner, names in os.walk(folder):
        top = Path(here) == folder
        inner[:] = [one for one in inner if not one.startswith(".") and not (top and OURS.fullmatch(one))]
        for name in names:
            ours = top and re.search(r"^preview(_\d+)?\.png$|\.(txt|json|partial|old\d*)$", name)
            image = not top and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
            if not (ours or image or name.startswith(".")):
                others.append((Path(here) / name).relative_to(folder).as_posix())
    return others


def label_entries(found: dict[str, list[str]], folder: Path, names: Sequence[str] | None = None) -> list[Entry]:
    """Return path and label of each image, classes numbered in alphabetical order.

    Raises:
        DataError: There are no classes, or one has no image.
    """
    if not found:
        raise DataError(
            f"Expected a folder of images for each class in {folder}, as {folder}/cats and {folder}/dogs, but it holds "
            "no folder."
        )
    for name, files in found.items():
        if not files:
            raise DataError(f"Expected images in {folder / name}, but got none. Add some, or take the folder away.")
    label_of = {name: label for label, name in enumerate(names or sorted(found))}
    return [(file, label_of[name]) for name, files in found.items() for file in files]
