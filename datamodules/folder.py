"""Images of your own: one folder per class, or index files."""

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
FRACTIONS, SPLIT_SEED = (0.8, 0.1, 0.1), 666  # defaults of a new split


class FolderDataModule(ImageDataModule):
    """Images of any size and format in a folder.

    The split is defined by the first of these that exists:

    - ``train.txt``, ``val.txt`` and ``test.txt`` in ``root``, one ``path label`` per line, used unchanged. Paths are
      relative to ``root``, or else to the working directory. Class names are read from ``classes.txt`` (one per line),
      or else from the folders of the images.
    - ``root/train/<class>/...``, with ``val`` and ``test`` next to ``train``; a missing one is split off from train.
      Names such as ``Training``, ``valid`` and ``test_set`` are recognised.
    - ``root/<class>/...``, split by ``fractions``.

    Each may be nested in folders that contain only one folder. The index files written on first use define the split
    from then on.

    Args:
        root: Data folder. Index files, ``dataset.json`` and decoded images are written there.
        images: Folder of the images if it is not ``root``, for example because it is read-only.
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
        self.images = Path(images) if images is not None else self.root
        if self.images.exists():  # a checkpoint can be used without the images of its run
            self._check_folder()
        # read here, because overwrite_split deletes dataset.json before it splits again with the same settings
        info = load_description(self.store.folder) or load_description(self.root)
        before = info.split if info is not None else {}
        self.fractions = fractions or before.get("fractions", FRACTIONS)
        self.split_seed = before.get("seed", SPLIT_SEED) if split_seed is None else split_seed
        check_fractions(self.fractions)
        self._has_given_split = self._find_given_split()
        self.store.base = self._base()

    @property
    def split_settings(self) -> dict[str, Any]:
        """Fractions and seed of the split, or that existing index files define it."""
        return GIVEN if self._has_given_split else {"fractions": list(self.fractions), "seed": self.split_seed}

    def source(self) -> dict[str, Any]:
        return {"name": "folder", "images": str(self.images)}

    def make_split(self) -> dict[str, list[Entry]]:
        """Return the entries of existing index files, or split the images."""
        if self._has_given_split:
            for stage in STAGES:
                if not index_path(self.root, stage).is_file():
                    raise DataError(
                        f"Expected {', '.join(f'{name}.txt' for name in STAGES)} in {self.root}, but {stage}.txt is "
                        "missing. Write it, or split the images again with --data.overwrite_split true."
                    )
            return {stage: read_index(index_path(self.root, stage)) for stage in STAGES}
        return self._divide()

    def find_class_names(self, entries: dict[str, list[Entry]]) -> Sequence[str]:
        """Return the names in ``classes.txt``, or else those of the folders that hold the images of each label."""
        if self._has_given_split and (self.root / CLASSES).is_file():
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
        every = [(file.split("/"), label) for stage_entries in entries.values() for file, label in stage_entries]
        labels = range(max(label for _, label in every) + 1)
        for level in (*range(max(len(parts) for parts, _ in every) - 1), -2):  # from the top; then the image's own
            names_of: dict[int, set[str]] = {label: set() for label in labels}
            for parts, label in every:
                names_of[label].add(parts[level] if level < len(parts) - 1 and len(parts) > 1 else "")
            class_names = [next(iter(names)) if len(names) == 1 else "" for names in names_of.values()]
            if all(class_names) and len(set(class_names)) == len(class_names):
                return class_names
        return [str(label) for label in labels]

    def prepare_data(self) -> None:
        self._check_folder()
        first = self._description is None
        super().prepare_data()
        if first and not self._has_given_split:
            self._report_left_out()

    # Helpers

    def _check_folder(self) -> None:
        if not self.images.is_dir():
            raise DataError(
                f"Expected a folder of images at --data.{'root' if self.images == self.root else 'images'}, but "
                f"{self.images} {'is a file' if self.images.exists() else 'does not exist'}."
            )

    def _find_given_split(self) -> bool:
        """Return whether index files exist that this module did not write."""
        info = load_description(self.root)
        if self.overwrite_split:
            return False
        if info is not None:
            return info.split == GIVEN
        stages = [stage for stage in STAGES if index_path(self.root, stage).is_file()]
        if not stages:
            return False
        try:  # after a preparation that was killed before it wrote dataset.json, they equal a new split
            own = self._divide()
        except DataError:
            return True
        return any(read_index(index_path(self.root, stage)) != own[stage] for stage in stages)

    def _base(self) -> Path:
        """Return the folder to which paths in index files are relative."""
        if self._has_given_split and index_path(self.root, "train").is_file():
            files = [Path(file) for file, _ in read_index(index_path(self.root, "train"))[:100]]  # some may be missing
            if not any((self.images / file).exists() for file in files) and any(file.exists() for file in files):
                return Path()
        return self.images

    def _divide(self) -> dict[str, list[Entry]]:
        folders = find_stages(self.images)
        files_of = {stage: find_images(folder, self.images) for stage, folder in folders.items()}
        names = sorted(files_of["train"])
        for stage, classes in files_of.items():
            if unknown := sorted(classes.keys() - set(names)):
                raise DataError(
                    f"Expected the classes of {folders['train']} ({', '.join(names)}) in {folders[stage]} too, but got "
                    f"{', '.join(unknown)}. Rename these folders to classes of train, or move them away."
                )
        parts = {stage: label_entries(classes, folders[stage], names) for stage, classes in files_of.items()}
        missing = [stage for stage in STAGES if stage not in parts]
        shares = [share for stage, share in zip(STAGES, self.fractions, strict=True) if stage in ("train", *missing)]
        divided = divide(parts["train"], [share / sum(shares) for share in shares], self.split_seed)
        return {**parts, **dict(zip(["train", *missing], divided, strict=True))}

    def _report_left_out(self) -> None:
        """Report images that are not listed in index files, and files that are not images of a class."""
        try:
            stages = [find_images(folder, self.images) for folder in find_stages(self.images).values()]
        except DataError as error:  # the existing split stays valid, although a new one would be rejected
            rank_zero_warn(f"The split of {self.root} could not be created again. {error}")
            return
        images = {file for classes in stages for files in classes.values() for file in files}
        if others := find_others(self.images, images):
            examples = ", ".join(f"{files[0]} ({len(files)} {cause})" for cause, files in others.items())
            number = sum(map(len, others.values()))
            rank_zero_info(f"{number} files in {self.images} are ignored, for example {examples}.")
        if new := sorted(images.difference(self.store.files())):
            folds = "" if self.folds is None else f" (without --data.folds; then delete {self.store.folder.parent})"
            rank_zero_info(
                f"{len(new)} images in {self.images} are in no index file, for example {new[0]}. Split all images "
                f"again with --data.overwrite_split true{folds}."
            )


def label_entries(files_of: dict[str, list[str]], folder: Path, names: Sequence[str]) -> list[Entry]:
    """Return the path and label of each image; labels are positions in ``names``.

    Raises:
        DataError: A class has no images.
    """
    for name, files in files_of.items():
        if not files:
            other = next((f"{parent}/{inner[0]}" for parent, inner in walk(folder / name) if inner), "")
            got = f"only files without an image suffix, for example {other}" if other else "none"
            raise DataError(f"Expected images in {folder / name}, but got {got}. Add images, or remove the folder.")
    label_of = {name: label for label, name in enumerate(names)}
    return [(file, label_of[name]) for name, files in files_of.items() for file in files]
