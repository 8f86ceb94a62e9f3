"""Your own images: a folder for each class, or index files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.base import ImageDataModule
from datamodules.errors import DataError
from datamodules.preparation.dataset_info import load_description
from datamodules.preparation.index import STAGES, Entry, index_path, read_index
from datamodules.preparation.layout import find_images, find_others, find_stages
from datamodules.preparation.split import Fractions, check_fractions, divide
from datamodules.preparation.store import CLASSES
from datamodules.reading.files import walk

GIVEN = {"name": "given"}
FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # of a first split


class FolderDataModule(ImageDataModule):
    """Images of any size and format, as they lie in a folder.

    Takes, in this order:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` a line, used as they are. Paths are
      relative to ``root``, or else to the folder that the command was started in. Classes are named by ``classes.txt``
      (a name a line), or else by the folders of the images.
    - ``root/train/<class>/...``, and ``val`` and ``test`` beside ``train``; what is not there is taken from train.
      Names like ``Training``, ``valid`` and ``test_set`` do as well.
    - ``root/<class>/...``, divided by ``fractions``.

    A folder that holds nothing but one other may stand around each. Whatever it was, the index files written then are
    the split from then on.

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
    def split_settings(self) -> dict[str, Any]:
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
                        "missing. Write it, or give --data.overwrite_split true to divide the images anew."
                    )
            return {stage: read_index(index_path(self.root, stage)) for stage in STAGES}
        return self._divide()

    def find_class_names(self, entries: dict[str, list[Entry]]) -> Sequence[str]:
        """Return the names in ``classes.txt``, or else of the folders in which images of one label lie."""
        if self._given and (self.root / CLASSES).is_file():
            try:
                lines = (self.root / CLASSES).read_text("utf-8-sig").split("\n")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"Expected UTF-8 in {self.root / CLASSES}, but got {error}. Save it as UTF-8."
                ) from error
            names = [line.strip() for line in lines if line.strip()]
            if twice := {name for name in names if names.count(name) > 1}:
                raise DataError(f"Expected each name once in {self.root / CLASSES}, but got {twice.pop()!r} again.")
            return names
        every = [(file.split("/"), label) for listed in entries.values() for file, label in listed]
        labels = range(max(label for _, label in every) + 1)
        for level in (*range(max(len(parts) for parts, _ in every) - 1), -2):  # from the top; then, around the image
            names_of: dict[int, set[str]] = {label: set() for label in labels}
            for parts, label in every:
                names_of[label].add(parts[level] if level < len(parts) - 1 and len(parts) > 1 else "")
            found = [next(iter(names)) if len(names) == 1 else "" for names in names_of.values()]
            if all(found) and len(set(found)) == len(found):
                return found
        return [str(label) for label in labels]

    def prepare_data(self) -> None:
        self._check_folder()
        first = self._description is None
        super().prepare_data()
        if first and not self._given:
            self._report_left_out()

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
        if self.overwrite_split:
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
        folders = find_stages(self.images)
        listed = {stage: find_images(folder, self.images) for stage, folder in folders.items()}
        names = sorted(listed["train"])
        for stage, classes in listed.items():
            if unknown := sorted(classes.keys() - set(names)):
                raise DataError(
                    f"Expected the classes of {folders['train']} ({', '.join(names)}) in {folders[stage]} too, but got "
                    f"{', '.join(unknown)}. Rename what is a class of train, and move away what is none."
                )
        parts = {stage: label_entries(one, folders[stage], names) for stage, one in listed.items()}
        missing = [stage for stage in STAGES if stage not in parts]
        shares = [share for stage, share in zip(STAGES, self.fractions, strict=True) if stage in ("train", *missing)]
        divided = divide(parts["train"], [share / sum(shares) for share in shares], self.split_seed)
        return {**parts, **dict(zip(["train", *missing], divided, strict=True))}

    def _report_left_out(self) -> None:
        """Report images that are in no index file, and files that are no images of a class."""
        try:
            stages = [find_images(folder, self.images) for folder in find_stages(self.images).values()]
        except DataError as error:  # the split stays what it is, though it would be refused by now
            rank_zero_warn(f"The split of {self.root} could not be made again. {error}")
            return
        images = {file for found in stages for files in found.values() for file in files}
        if others := find_others(self.images, images):
            some = ", ".join(f"{files[0]} ({len(files)} {cause})" for cause, files in others.items())
            number = sum(map(len, others.values()))
            rank_zero_info(f"{number} files in {self.images} are passed over, as {some}.")
        if new := sorted(images.difference(self.store.files())):
            folds = "" if self.folds is None else f", without --data.folds; then delete {self.store.folder.parent}"
            rank_zero_info(
                f"{len(new)} images in {self.images} are in no index file, as {new[0]}: --data.overwrite_split true "
                f"divides all images again{folds}."
            )


def label_entries(found: dict[str, list[str]], folder: Path, names: Sequence[str]) -> list[Entry]:
    """Return path and label of each image; labels are positions in ``names``.

    Raises:
        DataError: A class has no image.
    """
    for name, files in found.items():
        if not files:
            other = next((f"{here}/{inner[0]}" for here, inner in walk(folder / name) if inner), "")
            got = f"files without the suffix of one that Pillow reads, as {other}" if other else "none"
            raise DataError(f"Expected images in {folder / name}, but got {got}. Add some, or take the folder away.")
    label_of = {name: label for label, name in enumerate(names)}
    return [(file, label_of[name]) for name, files in found.items() for file in files]
