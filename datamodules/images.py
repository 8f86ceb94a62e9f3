"""From index files to augmented, normalised batches on the training device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.convert import is_converted, read_source
from datamodules.dataset import ImageDataset
from datamodules.description import FILE, Description, describe, is_current, load_description
from datamodules.errors import DataError
from datamodules.index import STAGES, Entry, index_path, read_index, write_index

Batch = tuple[Tensor, Tensor]


class ImageDataModule(LightningDataModule, ABC):
    """Images of one size in a folder, listed by ``train.txt``, ``val.txt`` and ``test.txt``.

    Batches reach the module as float32 ``(N, 3, H, W)``, augmented and normalised, with targets int64 ``(N,)``.

    A subclass says where the images come from (``make_images``) and how they are divided (``recipe``,
    ``make_split``); everything is prepared on first use, by one process while others wait.

    Args:
        root: Data folder: ``images/``, index files and ``dataset.json``.
        batch_size: Images in a batch, on each device.
        num_workers: Processes that read images; 0 reads in the main process.
        train_transforms: Augmentation of training images, uint8 ``(3, H, W)`` in and out, applied to one image at a
            time, in this order. Normalisation follows by itself.
        resplit: Write the index files anew if they were made by another recipe.
    """

    subsets: Sequence[str]  # folders below images/ that the recipe needs
    class_names_of_source: Sequence[str]
    image_size_of_source: int

    def __init__(
        self,
        root: str,
        batch_size: PositiveInt = 128,
        num_workers: NonNegativeInt = 2,
        train_transforms: list[nn.Module] | None = None,
        resplit: bool = False,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.train_transforms = nn.Sequential(*(train_transforms or []))
        self.resplit = resplit
        self._description: Description | None = None
        self._scale_and_shift: tuple[Tensor, Tensor] | None = None

    # What a subclass says

    @property
    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """The split, as plain values: two equal recipes make equal index files of equal images."""

    @abstractmethod
    def make_images(self, missing: Sequence[str]) -> None:
        """Write the ``missing`` subsets below ``images/``."""

    @abstractmethod
    def make_split(self) -> dict[str, list[Entry]]:
        """Divide the images among "train", "val" and "test"."""

    # What the dataset is; the first look prepares it

    @property
    def description(self) -> Description:
        """What ``dataset.json`` says."""
        if self._description is None:
            self.prepare_data()
            self._description = load_description(self.root)
            assert self._description is not None, "prepare_data writes the description"
        return self._description

    @property
    def class_names(self) -> list[str]:
        """Name of each label."""
        return self.description.class_names

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.description.image_size

    @property
    def mean(self) -> list[float]:
        """Mean of R, G and B over the training images, on the scale of 0 to 1."""
        return self.description.mean

    @property
    def std(self) -> list[float]:
        """Standard deviation of R, G and B over the training images, on the scale of 0 to 1."""
        return self.description.std

    # Lightning's hooks, in the order of their calls

    def prepare_data(self) -> None:
        """Make images, index files and ``dataset.json`` unless they are there already.

        Safe to call from several processes at once, and again after a kill at any moment.

        Raises:
            DataError: The images cannot be had, or index files of another recipe are in the way.
        """
        if self._is_prepared():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            rank_zero_info(f"Another process is preparing {self.root}: waiting for it.")
            lock.acquire()
        try:
            if not self._is_prepared():
                self._prepare()
        finally:
            lock.release()

    def setup(self, stage: str) -> None:
        """Read the index files that ``stage`` needs."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        self.datasets = {
            stage: ImageDataset(
                self.root,
                read_index(index_path(self.root, stage)),
                self.train_transforms if stage == "train" else nn.Identity(),
            )
            for stage in stages
        }

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, augmented batches."""
        dataset = self.datasets["train"]
        # a last batch of one image would break batch norm; a dataset smaller than a batch is kept
        return self._loader("train", shuffle=True, drop_last=len(dataset) >= self.batch_size)

    def val_dataloader(self) -> DataLoader:
        """Return batches in the order of ``val.txt``."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Return batches in the order of ``test.txt``."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise a batch on the device it was moved to."""
        if isinstance(batch, Tensor):  # the example input of Lightning's model summary
            return batch
        images, targets = batch
        if images.dtype == torch.uint8:
            images = images.float().div_(255)
        if self._scale_and_shift is None or self._scale_and_shift[0].device != images.device:
            mean, std = (
                torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (self.mean, self.std)
            )
            self._scale_and_shift = (1 / std, -mean / std)
        scale, shift = self._scale_and_shift
        return torch.addcmul(shift, images, scale), targets

    # Helpers

    def _loader(self, stage: str, shuffle: bool = False, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            self.datasets[stage],
            batch_size=self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _missing_subsets(self) -> list[str]:
        return [subset for subset in self.subsets if not is_converted(self.root / "images", subset)]

    def _is_prepared(self) -> bool:
        known = load_description(self.root)
        return (
            known is not None
            and known.split == self.recipe
            and is_current(known, self.root)
            and not self._missing_subsets()
        )

    def _prepare(self) -> None:
        missing = self._missing_subsets()
        known = load_description(self.root)
        if known is not None and known.split != self.recipe:
            if not self.resplit:
                raise DataError(
                    f"{self.root} is split by {known.split}, but {self.recipe} was asked for. Give --data.root another "
                    "folder, or --data.resplit true to write its index files anew."
                )
            (self.root / FILE).unlink()
            for stage in STAGES:
                index_path(self.root, stage).unlink(missing_ok=True)
            known = None
        if missing:
            self.make_images(missing)
        if known is None or not all(index_path(self.root, stage).is_file() for stage in STAGES):
            self._write_split()
        elif not is_current(known, self.root):
            rank_zero_info(f"The index files of {self.root} were edited: measuring them anew.")
        describe(
            self.root,
            list(self.class_names_of_source),
            self.image_size_of_source,
            self.recipe,
            {subset: read_source(self.root / "images", subset) for subset in self.subsets},
        )

    def _write_split(self) -> None:
        for stage, entries in self.make_split().items():
            path = index_path(self.root, stage)
            if path.is_file() and not self.resplit and read_index(path) != entries:
                raise DataError(
                    f"{path} is not what the split {self.recipe} gives. Delete it if it may go, or give --data.resplit "
                    "true to write all index files anew."
                )
            write_index(path, entries)
