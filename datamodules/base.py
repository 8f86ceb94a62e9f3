"""The base class of all data modules: load augmented, normalised batches from index files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import DataError, first_few
from datamodules.loading.dataset import ImageDataset, map_pixels
from datamodules.loading.loader import ImageLoader
from datamodules.loading.originals import OriginalsDataset, check_size
from datamodules.preparation.describe import DataFolder, Prepared
from datamodules.preparation.index import Entries
from datamodules.preparation.prepare_folder import prepare
from datamodules.preparation.statistics import divisors
from datamodules.reading.decode import Resize
from datamodules.transforms.batch import BatchTransform
from datamodules.transforms.image import ImageTransform, Transform, compose, output_size
from datamodules.transforms.normalize import NOT_NORMALIZED, BatchPipeline, Normalization, Normalize, find_normalization


class ImageDataModule(LightningDataModule, ABC):
    """Images in a folder, listed by ``train.txt``, ``val.txt`` and ``test.txt``.

    Batches reach the module as float32 ``(N, C, H, W)``, augmented and normalised, on the device where it is trained,
    with targets int64 ``(N,)``, or float ``(N, num_classes)`` after a mixing transform. A seed determines the batches,
    regardless of the number of workers and of where the pixels are stored. One process prepares all on first use.

    Args:
        root: Data folder: index files, ``dataset.json``, cache, and usually the images.
        batch_size: Images in a batch, on each device.
        num_workers: Number of worker processes that read files and apply per-image transforms; 0 uses the main process.
            Decoded images without per-image transforms need no workers.
        image_size: Side in pixels to which all images are resized; None if they all have the same size.
        resize: How images are resized: "crop" takes the centre square, "pad" adds black borders, "squash" ignores the
            aspect ratio.
        cache: Where decoded images are cached: "disk" memory-maps a file that the first run writes, "device" copies the
            pixels to the training device (on a CPU: into memory) unless there are per-image transforms, "none" reads
            every file in every epoch.
        originals: Read training images from their original files in every epoch, so that ``train_transforms``, such as
            RandomResizedCrop, receive all their pixels. The cache then holds only images of val and test.
        train_transforms: Per-image augmentation of training images: torchvision's or other transforms of uint8
            ``(C, H, W)``, applied in this order.
        eval_transforms: Per-image transforms for validation and test, such as CenterCrop. FiveCrop and TenCrop return
            several views of an image, whose logits are averaged.
        batch_transforms: Augmentation of whole training batches on the device; see ``datamodules.transforms.batch``.
        normalize: Subtract the mean and divide by the standard deviation of the training images (of a checkpoint's, if
            one is loaded); "pretrained" uses those of the pretrained weights from which the module starts. Set to False
            if both lists of transforms contain the same Normalize, or to train without.
        sampler: "shuffle" yields each training image once per epoch; "balanced" draws all classes equally often.
        drop_last: Drop an incomplete last training batch; batch norm fails on a batch of one image.
        folds: Number of folds for stratified cross-validation of the images in ``train.txt`` and ``val.txt``.
        fold: Index of the fold that is held out for validation, from 0.
        on_bad_image: "skip" excludes unreadable images and lists them; "error" stops at the first one.
        seed: Seed of shuffling and augmentation; by default that of ``seed_everything``.
        channels: Number of channels C: 1 for grey, 3 for RGB, 4 for RGB and alpha, or that of TIFF files. Other images
            are converted, except to 5 or more.
        overwrite_split: Write the index files again if they were created with other settings or from other images; the
            old ones are renamed to ``train.txt.old`` and so on.
    """

    def __init__(
        self,
        root: str,
        batch_size: PositiveInt = 128,
        num_workers: NonNegativeInt = 2,
        image_size: PositiveInt | None = None,
        resize: Resize = "crop",
        cache: Literal["none", "disk", "device"] = "disk",
        originals: bool = False,
        train_transforms: list[ImageTransform] | None = None,
        eval_transforms: list[ImageTransform] | None = None,
        batch_transforms: list[BatchTransform] | None = None,
        normalize: bool | Literal["pretrained"] = True,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        drop_last: bool = True,
        folds: PositiveInt | None = None,
        fold: NonNegativeInt = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        seed: NonNegativeInt | None = None,
        channels: PositiveInt = 3,
        overwrite_split: bool = False,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.originals = originals
        reading = image_size, resize, cache != "none", on_bad_image == "skip", folds, fold, int(channels)
        self.folder = DataFolder(self.root, *reading)
        self.folder.caches_train = not originals
        self.train_transforms = train_transforms or []
        self.eval_transforms = eval_transforms or []
        self.batch_transforms = batch_transforms or []
        self.normalize = normalize
        self.sampler = sampler
        self.drop_last = drop_last
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.overwrite_split = overwrite_split
        lists = self.train_transforms, self.eval_transforms
        self._own_normalization = find_normalization(*lists, bool(normalize), channels)
        self._matched: tuple[list[str] | None, Normalization] | None = None  # see match
        self._prepared: Prepared | None = None

    # Overridden by subclasses: where the images come from, and how they are split

    @property
    @abstractmethod
    def split_settings(self) -> dict[str, Any]:
        """Settings that determine the split, as plain values: equal settings and images give equal index files."""

    @abstractmethod
    def make_split(self) -> Entries:
        """Split the images into "train", "val" and "test"."""

    @abstractmethod
    def find_class_names(self, entries: Entries) -> Sequence[str]:
        """Return the class name of each label in the index files."""

    def prepare_images(self) -> None:
        """Create the images that are missing; safe to run again after a kill at any moment."""

    def source(self) -> dict[str, Any]:
        """Return where the images come from, for ``dataset.json``."""
        return {}

    # Properties of the data; the first access prepares it

    @property
    def prepared(self) -> Prepared:
        """The prepared images; see ``prepare_data``."""
        if self._prepared is None:
            self._prepared = prepare(self)
        return self._prepared

    @property
    def digest(self) -> str:
        """SHA-256 of index files, class names, mean, std and the pixels of train, val and test."""
        return self.prepared.digest

    @property
    def class_names(self) -> list[str]:
        """Class name of each label in the batches."""
        return (self._matched and self._matched[0]) or self.prepared.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Number of training images of each label."""
        return [self.prepared.counts["train"].get(name, 0) for name in self.class_names]

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the module receives."""
        transform, channels = self.transform_of("test"), self.folder.channels
        return output_size(transform, self.prepared.size, bool(self.normalize), channels=channels)

    @property
    def mean(self) -> list[float]:
        """Mean of each channel with which batches, or else ``eval_transforms``, normalise images of 0 to 1."""
        return self._normalization[0]

    @property
    def std(self) -> list[float]:
        """Standard deviation of each channel, see ``mean``; 1 for a constant channel."""
        return self._normalization[1]

    @property
    def _normalization(self) -> Normalization:
        if self._matched is not None:
            return self._matched[1]
        if self.normalize:
            return self.prepared.stats.mean, divisors(self.prepared.stats.std)
        return self._own_normalization

    def match(self, class_names: list[str] | None, mean: list[float], std: list[float]) -> None:
        """Adapt the batches to a network that was trained on other data: use its labels, and its mean and std.

        ``class_names``, which include those of the data, is None if the network accepts images of any class.

        Raises:
            DataError: The network takes other channels, or ``eval_transforms`` normalise images in another way.
        """
        if len(mean) != self.folder.channels:
            raise DataError(
                f"Expected --data.channels {len(mean)}, as the checkpoint was trained, but got {self.folder.channels}."
            )
        own = self._own_normalization
        if not self.normalize and not np.allclose(own, (mean, std), atol=1e-3):
            raise DataError(
                f"Expected images with mean {mean} and std {std}, as the checkpoint was trained, but with "
                f"--data.normalize false, --data.eval_transforms normalise by {own[0]} and {own[1]}."
            )
        self._matched = class_names, (mean, std)

    def transform_of(self, split: str) -> Transform | None:
        """Return the per-image transforms of train, val or test, or None if there are none."""
        transforms = self.train_transforms if split == "train" else self.eval_transforms
        return compose(transforms, self.folder.channels) if transforms else None

    # Lightning's hooks, in the order in which they are called

    def prepare_data(self) -> None:
        """Create the images, index files, ``dataset.json`` and cache if they are missing or outdated."""
        _ = self.prepared

    def setup(self, stage: str) -> None:
        """Open the decoded images, and create the datasets that ``stage`` needs."""
        if self.normalize == "pretrained" and self._matched is None and self.trainer is not None:
            raise DataError("Expected a call of match(None, mean, std) with the weights' mean and std, but got none.")
        if self.prepared.cache is not None and not self.prepared.cache.exists():
            self._prepared = None  # the cache was deleted after prepare_data
        prepared = self.prepared
        pixels = None if prepared.cache is None else map_pixels(prepared.cache)
        self.datasets = {}
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]:
            transform = self.transform_of(split)
            # checks the transforms
            output_size(transform, prepared.size, bool(self.normalize), split != "train", self.folder.channels)
            options = prepared, split, self.class_names, transform
            if self.originals and split == "train":
                check_size(transform, self.image_size, self.folder.channels)
                self.datasets[split] = OriginalsDataset.of(*options, None)
            else:
                self.datasets[split] = ImageDataset.of(*options, pixels)
        if stage == "fit":
            numbers = ", ".join(f"{len(entries)} {split}" for split, entries in prepared.entries.items())
            info = f"{self.num_classes} classes ({first_few(self.class_names)}) in {self.root}; images: {numbers}."
            for line in [info, *prepared.stats.contrast_notes()]:
                rank_zero_info(line)

    def train_dataloader(self) -> ImageLoader:
        """Return shuffled, augmented batches."""
        shuffle = self.trainer is None or not getattr(self.trainer, "overfit_batches", 0)
        options = {"shuffle": shuffle, "balanced": self.sampler == "balanced", "drop_last": self.drop_last}
        return self._loader("train", self.batch_transforms, **options)

    def val_dataloader(self) -> ImageLoader:
        return self._loader("val", [])

    def test_dataloader(self) -> ImageLoader:
        return self._loader("test", [])

    def _loader(self, split: str, transforms: Sequence[BatchTransform], **options: Any) -> ImageLoader:
        dataset, trainer = self.datasets[split], self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        ranks = {} if trainer is None else {"rank": trainer.global_rank, "world_size": trainer.world_size}
        if self.cache == "device" and dataset.transform is None:
            dataset.to_device(device)
        normalize = Normalize(*(self._normalization if self.normalize else NOT_NORMALIZED))
        options |= {"num_workers": self.num_workers, "seed": self.seed, "num_classes": self.num_classes, **ranks}
        return ImageLoader(dataset, self.batch_size, BatchPipeline(transforms, normalize), device, **options)
