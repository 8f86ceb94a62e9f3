"""CIFAR-10 as PNG files (Krizhevsky, 2009, "Learning multiple layers of features from tiny images")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torchvision.datasets import CIFAR10

from datamodules.base import ImageDataModule
from datamodules.errors import DataError
from datamodules.preparation.cifar10_archive import ARCHIVE, BATCHES, CLASS_NAMES, FOLDER, PAGE, read_batches
from datamodules.preparation.download import download, md5_of
from datamodules.preparation.index import STAGES, Entries
from datamodules.preparation.split import Fractions, check_fractions, divide
from datamodules.preparation.write_pngs import convert, find_missing, list_converted, read_source

BATCH_MD5 = dict((*CIFAR10.train_list, *CIFAR10.test_list))


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes.

    The images are taken from the first of these that exists: images already prepared under ``root``; ``archive``; an
    archive or extracted folder with its official name in ``root`` or its parent folder; the official site.

    Args:
        root: Data folder.
        archive: ``cifar-10-python.tar.gz``, the folder ``cifar-10-batches-py`` extracted from it, or a folder that
            holds one of them.
        split: "official" uses a tenth of the 50,000 training images for validation and the 10,000 test images for
            testing; "tutorial" splits the 10,000 test images 8:1:1 and ignores the training images; three fractions,
            such as ``[0.8, 0.1, 0.1]``, split all 60,000.
        split_seed: Seed of the split.
        **kwargs: See ``ImageDataModule``.
    """

    def __init__(
        self,
        root: str = "data/cifar10",
        archive: str | None = None,
        split: Literal["official", "tutorial"] | Fractions = "official",
        split_seed: int = 666,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.archive = None if archive is None else Path(archive)
        self.split = split
        self.split_seed = split_seed
        self.subsets = ("test",) if split == "tutorial" else ("train", "test")
        if isinstance(split, tuple):
            check_fractions(split)

    @property
    def split_settings(self) -> dict[str, Any]:
        """Name, or fractions, and seed of the split."""
        if isinstance(self.split, tuple):
            return {"fractions": list(self.split), "seed": self.split_seed}
        return {"name": self.split, "seed": self.split_seed}

    def prepare_images(self) -> None:
        """Find or download the archive and write its images as PNG files."""
        missing = find_missing(self.root / "images", self.subsets)
        if not missing:
            return
        archive = self._find_archive()
        source = {"name": "CIFAR-10", "archive": archive.name, **md5_facts(archive)}
        convert(read_batches(archive, missing), self.root / "images", CLASS_NAMES, source)
        if not source["official"]:
            rank_zero_info(f"The MD5 of {archive} is not the official one: its pixels may differ from CIFAR-10's.")

    def make_split(self) -> Entries:
        """Split the images as configured by ``split``, stratified by class."""
        entries = {subset: list_converted(self.root / "images", subset) for subset in self.subsets}
        if self.split == "official":
            train, val = divide(entries["train"], (0.9, 0.1), self.split_seed)
            return {"train": train, "val": val, "test": entries["test"]}
        every = [entry for subset in self.subsets for entry in entries[subset]]
        fractions = (0.8, 0.1, 0.1) if self.split == "tutorial" else self.split
        return dict(zip(STAGES, divide(every, fractions, self.split_seed), strict=True))

    def find_class_names(self, entries: Entries) -> Sequence[str]:
        return CLASS_NAMES

    def source(self) -> dict[str, Any]:
        return {subset: read_source(self.root / "images", subset) for subset in self.subsets}

    # Helpers

    def _find_archive(self) -> Path:
        """Return the path of the archive, after downloading it if necessary."""
        folders = (self.root, self.root.parent) if self.archive is None else (self.archive,)
        places = [folder / name for folder in folders for name in (FOLDER, ARCHIVE)]
        for place in (*places, *filter(None, [self.archive])):
            if place.exists():
                return place
        try:
            if self.archive is not None:
                raise DataError(f"{self.archive} does not exist")
            download(CIFAR10.url, self.root / ARCHIVE, CIFAR10.tgz_md5)
        except DataError as error:
            raise DataError(
                f"Expected CIFAR-10 at one of {', '.join(map(str, places))}, but it is missing. {error}. Get {ARCHIVE} "
                f"from {PAGE}, put it into {self.root} or give --data.archive PATH, or add --config "
                "configs/sample.yaml to train on a small sample that needs no network."
            ) from error
        return self.root / ARCHIVE


def md5_facts(archive: Path) -> dict[str, Any]:
    """Return the MD5 of an archive, or of each batch in a folder, and whether they are the official ones."""
    expected = {name: BATCH_MD5[name] for name in BATCHES} if archive.is_dir() else {"": CIFAR10.tgz_md5}
    md5 = {name: md5_of(archive / name) for name in expected if (archive / name).is_file()}
    return {"md5": md5.get("", md5), "official": md5 == expected}
