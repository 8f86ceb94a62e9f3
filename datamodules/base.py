"""The base class of all data modules: load augmented, normalised batches from index files."""

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from datamodules.errors import DataError, first_few
from datamodules.loading.dataset import ImageDataset
from datamodules.loading.file_dataset import FileDataset
from datamodules.loading.loader import ImageLoader
from datamodules.preparation.cache import scan
from datamodules.preparation.dataset_info import FILE, DatasetInfo, load_description, write_description
from datamodules.preparation.index import STAGES, Entry, digest_of, read_index, text_of, write_index
from datamodules.preparation.split import fold_of
from datamodules.preparation.statistics import divisors
from datamodules.preparation.store import ImageStore
from datamodules.reading.decode import Resize
from datamodules.reading.read_images import read_images
from datamodules.transforms.batch import Batch, BatchContext, BatchTransform
from datamodules.transforms.image import ImageTransform, compose, extremes, normalization, normalizers, seeded
from datamodules.transforms.normalize import Normalize

NOT_NORMALIZED = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]  # mean and standard deviation
BYTES = 10  # larger than a normalised 1, so an image with a higher value is on the scale of 0 to 255
LEAST, GREATEST = -0.25, 1.75  # range of images of 0 to 1 after noise and colour transforms, but not normalisation
FIT_IMAGES = 10_000  # training images that a transform is fitted to, unless it has a `num_images`


class ImageDataModule(LightningDataModule, ABC):
    """Images in a folder, listed by ``train.txt``, ``val.txt`` and ``test.txt``.

    Batches reach the module as float32 ``(N, 3, H, W)``, augmented and normalised, on the device where it is trained,
    with targets int64 ``(N,)``, or float ``(N, num_classes)`` after a mixing transform. A seed determines the batches,
    regardless of the number of workers and of where the pixels are stored.

    A subclass defines where the images come from (``prepare_images``) and how they are split (``split_settings``,
    ``make_split``). One process prepares everything on first use while the others wait.

    Args:
        root: Data folder: index files, ``dataset.json``, cache, and usually the images.
        batch_size: Images in a batch, on each device.
        num_workers: Number of worker processes that read files and apply per-image transforms; 0 uses the main process.
            Decoded images without per-image transforms need no workers.
        image_size: Side in pixels to which all images are resized; None if they all have the same size.
        resize: How images are resized: "crop" takes the centre square, "pad" adds black borders, "squash" ignores the
            aspect ratio.
        cache: Where decoded images are cached: "disk" memory-maps a file that the first run writes, "device" copies the
            pixels to the training device (on a CPU: into memory), "none" reads every file in every epoch.
        train_transforms: Per-image augmentation of training images: torchvision's or other transforms of uint8
            ``(3, H, W)``, applied in this order.
        eval_transforms: Per-image transforms for validation and test, such as CenterCrop. FiveCrop and TenCrop return
            several views of an image, whose logits are averaged.
        batch_transforms: Augmentation of whole training batches on the device, after ``train_transforms``; see
            ``datamodules.transforms.batch``.
        normalize: Subtract the mean and divide by the standard deviation of the training images or, with weights of a
            checkpoint, of the images that it was trained on. Set to False if both lists of transforms already contain
            the same normalisation, or to train without one.
        sampler: "shuffle" yields each training image once per epoch; "balanced" draws all classes equally often.
        drop_last: Drop an incomplete last training batch; batch norm fails on a batch of one image.
        folds: Number of folds for stratified cross-validation of the training and validation images; the test images
            stay the same. Each fold has its own index files.
        fold: Index of the fold that is held out for validation, from 0.
        on_bad_image: "skip" excludes unreadable images and lists them; "error" stops at the first one.
        seed: Seed of shuffling and augmentation; by default that of ``seed_everything``.
        overwrite_split: Write the index files again if they were created with other settings or from other images; the
            old ones are renamed to ``train.txt.old`` and so on.
    """

    class_names_of_source: Sequence[str] = ()

    def __init__(
        self,
        root: str,
        batch_size: PositiveInt = 128,
        num_workers: NonNegativeInt = 2,
        image_size: PositiveInt | None = None,
        resize: Resize = "crop",
        cache: Literal["none", "disk", "device"] = "disk",
        train_transforms: list[ImageTransform] | None = None,
        eval_transforms: list[ImageTransform] | None = None,
        batch_transforms: list[BatchTransform] | None = None,
        normalize: bool = True,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        drop_last: bool = True,
        folds: PositiveInt | None = None,
        fold: NonNegativeInt = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        seed: NonNegativeInt | None = None,
        overwrite_split: bool = False,
    ) -> None:
        super().__init__()
        if cache == "device" and train_transforms:
            raise DataError(
                "Expected no --data.train_transforms with --data.cache device, because they work on the CPU, one image "
                "at a time: use --data.batch_transforms (datamodules.transforms.batch), or --data.cache disk."
            )
        if folds is not None and (folds < 2 or fold >= folds):
            raise DataError(f"Expected --data.folds of 2 or more, and a --data.fold below it, but got {folds}, {fold}.")
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.train_transforms = train_transforms or []
        self.eval_transforms = eval_transforms or []
        self.batch_transforms: list[BatchTransform] = batch_transforms or []
        self.normalize = normalize
        self.sampler = sampler
        self.drop_last = drop_last
        self.folds = folds
        self.fold = fold
        self.overwrite_split = overwrite_split
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        # each fold has its own index files, but their paths are relative to root
        index_folder = self.root if folds is None else self.root / f"folds_{folds}" / str(fold)
        skip = on_bad_image == "skip"
        self.store = ImageStore(self.root, index_folder, image_size, resize, cache != "none", skip)
        self._description: DatasetInfo | None = None
        self._checkpoint_data: tuple[list[str] | None, list[float], list[float]] | None = None  # see match
        self._fitted: list[Any] = []
        self._normalizer: Normalize | None = None

    # Overridden by subclasses

    @property
    @abstractmethod
    def split_settings(self) -> dict[str, Any]:
        """Settings that determine the split, as plain values: equal settings and images give equal index files."""

    @abstractmethod
    def make_split(self) -> dict[str, list[Entry]]:
        """Split the images into "train", "val" and "test"."""

    def is_prepared(self) -> bool:
        """Return whether the images exist."""
        return True

    def prepare_images(self) -> None:
        """Create the images that are missing; safe to run again after a kill at any moment."""

    def source(self) -> dict[str, Any]:
        """Return where the images come from, for ``dataset.json``."""
        return {}

    verified = "every image can be read"
    repair_hint = "Replace them, or exclude them with --data.on_bad_image skip."

    def verify(self) -> list[str]:
        """Return the problems of the images on disk, one line each."""
        self.prepare_data()
        files = self.store.files()
        result = scan(self.store.base, files, self.store.size, self.store.resize, None)
        return [str(error) for _, error in sorted(result.unreadable.items())]

    def find_class_names(self, entries: dict[str, list[Entry]]) -> Sequence[str]:
        """Return the class name of each label in the index files."""
        return self.class_names_of_source

    # Properties of the dataset; the first access prepares it

    def match(self, class_names: list[str] | None, mean: list[float], std: list[float]) -> None:
        """Adapt the batches to a network that was trained on other data: use its labels, mean and standard deviation.

        Args:
            class_names: The network's classes in order; None if it accepts images of any class.
            mean: Mean of R, G and B with which its images were normalised, on the scale of 0 to 1.
            std: Standard deviation of R, G and B, on the same scale.

        Raises:
            DataError: The network does not know the class of an image, or ``normalize`` differs from its training.
        """
        own = self.description.class_names
        if unknown := set(own).difference(own if class_names is None else class_names):
            raise DataError(f"Expected classes in {self.root} that the network knows, but got {min(unknown)}.")
        normalized = (mean, std) != NOT_NORMALIZED
        by_transforms = NOT_NORMALIZED if self.normalize else self._given_normalization()
        if normalized != self.normalize and by_transforms == NOT_NORMALIZED:
            raise DataError(
                f"Expected --data.normalize {str(normalized).lower()}, as the checkpoint was trained, but got "
                f"{str(self.normalize).lower()}."
            )
        if not self.normalize and not np.allclose(by_transforms, (mean, std), atol=1e-4):
            if normalized:
                raise DataError(
                    f"Expected a Normalize with mean and std of {(mean, std)} in --data.eval_transforms, as the "
                    f"checkpoint was trained, but got {by_transforms}."
                )
            rank_zero_warn(  # earlier versions saved 0 and 1 even if the transforms normalised
                f"The checkpoint has no mean and std. Images are normalised by --data.eval_transforms, with mean and "
                f"std of {by_transforms}: check that it was trained with these."
            )
        self._checkpoint_data, self._normalizer = (class_names, mean, std), None

    @property
    def description(self) -> DatasetInfo:
        """Content of ``dataset.json``."""
        self.prepare_data()
        assert self._description is not None, "prepare_data sets it"
        return self._description

    @property
    def digest(self) -> str:
        """SHA-256 of the data: of ``index_digest`` and the pixels of train, val and test."""
        index_digest, pixels = self.index_digest, self.description.pixels[self.store.key].digest
        if not pixels:  # prepared by an earlier version, in a folder that cannot be written to
            return index_digest
        return hashlib.sha256(f"{index_digest} {pixels}".encode()).hexdigest()

    @property
    def index_digest(self) -> str:
        """SHA-256 of the index files, the class names, and mean and std of the training images.

        Earlier versions recorded it as ``digest``.
        """
        info = self.description
        pixels = info.pixels[self.store.key]
        text = json.dumps([info.digests, info.class_names, self.store.key, pixels.mean, pixels.std])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def class_names(self) -> list[str]:
        """Class name of each label in the batches."""
        names = self._checkpoint_data[0] if self._checkpoint_data is not None else None
        return self.description.class_names if names is None else names

    @property
    def class_counts(self) -> list[int]:
        """Number of training images of each label."""
        counts = self.description.counts["train"]
        return [counts.get(name, 0) for name in self.class_names]

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the module receives."""
        self.prepare_data()
        self._check_scale()  # here, because the size is needed before a run directory is created
        self._fit(self.eval_transforms)
        with seeded(0):
            black = torch.zeros(3, self.store.size, self.store.size, dtype=torch.uint8)
            shape = tuple(compose(self.eval_transforms)(black).shape)
        if shape[-1] != shape[-2]:
            raise DataError(f"Expected --data.eval_transforms that return square images, but got {shape}.")
        return int(shape[-1])

    @property
    def mean(self) -> list[float]:
        """Mean of R, G and B with which batches are normalised, on the scale of 0 to 1.

        With ``normalize: false``, the mean of a ``Normalize`` in ``eval_transforms``, or 0.
        """
        if self._checkpoint_data is not None:
            return self._checkpoint_data[1]
        return self.description.pixels[self.store.key].mean if self.normalize else self._given_normalization()[0]

    @property
    def std(self) -> list[float]:
        """Standard deviation of R, G and B with which batches are normalised, on the scale of 0 to 1.

        It is 1 for a constant channel. With ``normalize: false``, see ``mean``.
        """
        if self._checkpoint_data is not None:
            return self._checkpoint_data[2]
        if not self.normalize:
            return self._given_normalization()[1]
        return divisors(self.description.pixels[self.store.key].std)

    def inference_dataset(self, files: Sequence[str], trained_size: int) -> FileDataset:
        """Return a dataset of any image files, resized and transformed like test images.

        This needs the images of the data folder only if a transform is fitted to them, or if transforms are used and
        ``image_size`` is None.

        Args:
            files: Their paths.
            trained_size: Side in pixels of the images that the network was trained with, after ``eval_transforms``.
        """
        transforms = self.eval_transforms
        if transforms and self.store.resize is None:
            self.prepare_data()  # determines the size
        size = self.store.size if transforms or self.store.resize is not None else trained_size
        self._fit(transforms)
        return FileDataset(files, size, self.store.resize or "crop", compose(transforms) if transforms else None)

    # Lightning's hooks, in the order in which they are called

    def prepare_data(self) -> None:
        """Create the images, index files, ``dataset.json`` and cache if they are missing or outdated.

        Safe to call from several processes at once, and again after a kill at any moment.

        Raises:
            DataError: The images are not available, or index files with other split settings exist.
        """
        if self._description is not None or self._load_prepared():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                rank_zero_info(f"Another process is preparing {self.root}. Waiting until it finishes.")
                lock.acquire()
            try:
                if not self._load_prepared():
                    self._prepare()
            finally:
                lock.release()
        except OSError as error:
            raise DataError(
                f"{error.filename or self.root}: {error.strerror or error}. Preparing {self.root} needs free space and "
                "permission to read and write. Provide them or change --data.root, and run the command again. "
                "Incomplete files are not used."
            ) from error

    def setup(self, stage: str) -> None:
        """Read the index files that ``stage`` needs and open the decoded images."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        description = self.description
        self._check_scale()
        if stage == "fit":
            numbers = ", ".join(f"{sum(counts.values())} {split}" for split, counts in description.counts.items())
            rank_zero_info(
                f"{self.num_classes} classes ({first_few(self.class_names)}) in {self.root}; images: {numbers}."
            )
        pixels, rows = self._open()
        entries = self.store.readable(description)
        labels = [self.class_names.index(name) for name in description.class_names]
        self.datasets = {}
        for split in stages:
            transforms = self.train_transforms if split == "train" else self.eval_transforms
            self._fit(transforms)
            self.datasets[split] = ImageDataset(
                self.store.base,
                [(file, labels[label]) for file, label in entries[split]],
                self.store.size,
                self.store.resize,
                compose(transforms) if transforms else None,
                pixels,
                None if pixels is None else torch.tensor([rows[file] for file, _ in entries[split]]),
            )
        if stage == "fit":
            if self.batch_transforms:
                self._check_batch_transforms()
            for note in description.pixels[self.store.key].contrast_notes():
                rank_zero_info(note)

    def train_dataloader(self) -> ImageLoader:
        """Return shuffled, augmented batches."""
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        weights = None
        if self.sampler == "balanced":
            targets = self.datasets["train"].targets.cpu()
            weights = (1 / torch.bincount(targets, minlength=self.num_classes).double())[targets]
        options = {"shuffle": not overfit, "weights": weights, "drop_last": self.drop_last}
        return self._loader("train", self._augment, transform_unaugmented=self._normalize, **options)

    def val_dataloader(self) -> ImageLoader:
        """Return batches in the order of ``val.txt``."""
        return self._loader("val", self._normalize)

    def test_dataloader(self) -> ImageLoader:
        """Return batches in the order of ``test.txt``."""
        return self._loader("test", self._normalize)

    # Helpers: batches

    def _loader(
        self, stage: str, transform: Callable[[Tensor, Tensor, BatchContext], Batch], **options: Any
    ) -> ImageLoader:
        dataset = self.datasets[stage]
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self.cache == "device" and dataset.transform is None:
            dataset.to_device(device)
        return ImageLoader(
            dataset,
            self.batch_size,
            transform,
            device,
            num_workers=self.num_workers,
            seed=self.seed,
            num_classes=self.num_classes,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            **options,
        )

    def _augment(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        white = 255 if images.dtype == torch.uint8 else 1  # mixing converts uint8 to float on the same scale
        images, targets = self._apply_batch_transforms(images, targets, draw)
        return self._to_network(images, white), targets

    def _apply_batch_transforms(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        if images.ndim != 4:
            raise DataError(
                f"Expected --data.train_transforms that return one view per image, but got {tuple(images.shape[1:])}. "
                "Use transforms with several views, such as FiveCrop, only in --data.eval_transforms."
            )
        for transform in self.batch_transforms:
            images, targets = transform(images, targets, draw)
        return images, targets

    def _normalize(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        return self._to_network(images, 255 if images.dtype == torch.uint8 else 1), targets

    def _to_network(self, images: Tensor, white: int) -> Tensor:
        if self._normalizer is None:
            mean, std = (self.mean, self.std) if self.normalize else NOT_NORMALIZED
            self._normalizer = Normalize(mean, std)
        return self._normalizer(images, white)

    def _check_scale(self) -> None:
        """Check the value range of per-image transforms on a black and a white image.

        Raises:
            DataError: Images would be normalised twice, or only in training, or would be floats of 0 to 255.
        """
        size, off = self.store.size, {}
        for option in ("train_transforms", "eval_transforms"):
            transforms = getattr(self, option)
            if not transforms or any(hasattr(each, "fit") for each in transforms):  # fitting whitening is slow
                continue
            low, high = extremes(compose(transforms), size)
            if high > BYTES and self.normalize:
                raise DataError(
                    f"Expected floats of 0 to 1 from --data.{option}, but white becomes {high:.3g}. Set `scale: true` "
                    "of ToDtype, or use --data.normalize false."
                )
            if low < LEAST or high > GREATEST:
                off[option] = f"--data.{option} map black to {low:.3g} and white to {high:.3g}"
        if off and self.normalize:
            raise DataError(
                f"Images would be normalised twice: {' and '.join(off.values())}. Remove Normalize, or use "
                "--data.normalize false."
            )
        if len(off) == 1:
            raise DataError(
                "Expected the same Normalize in --data.train_transforms and eval_transforms, but only "
                f"{off.popitem()[1]}."
            )
        self._check_normalizers()

    def _check_normalizers(self) -> None:
        """Compare each Normalize in ``train_transforms`` with that in ``eval_transforms``.

        Raises:
            DataError: They differ, and the transforms as a whole normalise differently.
        """
        lists = self.train_transforms, self.eval_transforms
        train, evaluation = map(normalizers, lists)
        if not train or not evaluation or _are_close(train, evaluation):
            return
        if not any(hasattr(each, "fit") for each in (*lists[0], *lists[1])):  # scales of 0 to 1 and 0 to 255 may differ
            overall, other = (normalization(compose(transforms), self.store.size) for transforms in lists)
            if overall and other and _are_close([overall], [other]):
                return
        of_train, of_evaluation = (
            " and ".join(f"mean {mean} and std {std}" for mean, std in pairs) for pairs in (train, evaluation)
        )
        raise DataError(
            f"Expected the same Normalize in --data.train_transforms and eval_transforms, but got {of_train} in "
            f"train_transforms, and {of_evaluation} in eval_transforms. Use the same in both."
        )

    def _check_batch_transforms(self) -> None:
        """Check the scale of ``batch_transforms`` on a white image.

        Raises:
            DataError: They change the scale of the image.
        """
        with seeded(0):
            white = torch.full((3, self.store.size, self.store.size), 255, dtype=torch.uint8)
            images = torch.stack([compose(self.train_transforms)(white)] * 8)
            draw = BatchContext(torch.Generator().manual_seed(0), 0, torch.arange(8), 0, self.num_classes)
            batch, _ = self._apply_batch_transforms(images, torch.zeros(8, dtype=torch.int64), draw)
        before, after = images.max().item(), batch.max().item()
        if before and not before / 10 < after < before * 10:
            raise DataError(
                f"Expected --data.batch_transforms that keep the scale of images, but they map {before:.3g} to "
                f"{after:.3g}. Batches are normalised after them."
            )

    def _given_normalization(self) -> tuple[list[float], list[float]]:
        """Return the mean and standard deviation with which ``eval_transforms`` normalise, or 0 and 1."""
        if not self.eval_transforms:
            return NOT_NORMALIZED
        self.prepare_data()  # determines the size
        self._fit(self.eval_transforms)
        return normalization(compose(self.eval_transforms), self.store.size) or NOT_NORMALIZED

    def _fit(self, transforms: Sequence[Any]) -> None:
        """Fit transforms with a ``fit`` method, such as ZCAWhitening, once, to evenly spaced training images."""
        for transform in transforms:
            if hasattr(transform, "fit") and transform not in self._fitted:
                entries = self.store.readable(self.description)["train"]
                sample = entries[:: -(-len(entries) // getattr(transform, "num_images", FIT_IMAGES))]
                paths = [f"{self.store.base / file}" for file, _ in sample]
                transform.fit(torch.from_numpy(read_images(paths, self.store.size, self.store.resize)))
                self._fitted.append(transform)

    # Helpers: preparation

    @property
    def _all_split_settings(self) -> dict[str, Any]:
        return (
            self.split_settings
            if self.folds is None
            else {**self.split_settings, "folds": self.folds, "fold": self.fold}
        )

    def _needs_new_split(self) -> bool:
        """Return whether ``overwrite_split`` is set and a new split differs from the current index files."""
        whole = (
            self.overwrite_split and self.folds is None and all(self.store.index(stage).is_file() for stage in STAGES)
        )
        return whole and self.make_split() != self.store.listed()

    def _load_prepared(self) -> bool:
        current = self.is_prepared() and not self._needs_new_split()
        self._description = self.store.load(self._all_split_settings) if current else None
        return self._description is not None

    def _prepare(self) -> None:
        info = load_description(self.store.folder)
        settings = self._all_split_settings
        # a preparation that was interrupted, and whose index files were not edited since
        unfinished = info is not None and not info.pixels and self.store.is_described_by(info)
        if info is not None and info.split != settings and not unfinished:
            if not self.overwrite_split:
                raise DataError(
                    f"Expected index files in {self.store.folder} with the split {settings}, but got {info.split}. "
                    "Change --data.root, or write new index files with --data.overwrite_split true."
                )
            info = None
        if self.is_prepared() and self._needs_new_split():
            info = None
        if self.overwrite_split and (info is None or unfinished):
            self._set_split_aside()
        unfinished = unfinished and self.folds is None  # all folds were written together and stay unchanged
        if not self.is_prepared():
            self.prepare_images()
        if not all(self.store.index(stage).is_file() for stage in STAGES) or info is None or unfinished:
            self._write_split(replace=unfinished)
        elif not self.store.is_described_by(info):
            rank_zero_info(f"The index files of {self.store.folder} were edited. Reading all images again.")
        self._description = self.store.describe(settings, self.source(), self.find_class_names)
        for note in self._description.pixels[self.store.key].loss_notes():
            rank_zero_info(note)

    def _set_split_aside(self) -> None:
        """Delete ``dataset.json``, then rename the index files, which may have been edited by hand."""
        (self.store.folder / FILE).unlink(missing_ok=True)
        for path in map(self.store.index, STAGES):
            if path.is_file():
                backups = (path.with_name(f"{path.name}.old{number or ''}") for number in itertools.count())
                path.rename(next(backup for backup in backups if not backup.exists()))

    def _write_split(self, replace: bool) -> None:
        """Write ``dataset.json`` with the digests of the index files, then the index files.

        Args:
            replace: Whether existing index files may be overwritten.
        """
        if self.folds is None:
            self._write_part(self.store, self.split_settings, self.make_split(), replace)
            return
        parts = self._divided_before() or self.make_split()
        entries = sorted(parts["train"] + parts["val"])
        for fold in range(self.folds):  # all folds at once, so that new images cannot move others between folds
            train, val = fold_of(entries, self.folds, fold, self.split_settings.get("seed", 0))
            store = self.store.at(self.root / f"folds_{self.folds}" / str(fold))
            settings = {**self.split_settings, "folds": self.folds, "fold": fold}
            if store.folder == self.store.folder or not all(store.index(stage).is_file() for stage in STAGES):
                self._write_part(store, settings, {"train": train, "val": val, "test": parts["test"]}, replace)

    def _divided_before(self) -> dict[str, list[Entry]] | None:
        """Return the existing split of the whole folder if it has the same split settings, else None."""
        whole = self.store.at(self.root)
        info = load_description(self.root)
        return whole.listed() if info is not None and info.split == self.split_settings and info.pixels else None

    def _write_part(
        self, store: ImageStore, settings: dict[str, Any], parts: dict[str, list[Entry]], replace: bool
    ) -> None:
        digests, stages = store.digests(), set(parts)  # the digest of classes.txt too; stages to write
        for stage, entries in parts.items():
            path = store.index(stage)
            digests[path.name] = digest_of(text_of(entries))
            if path.is_file() and read_index(path) == entries:
                digests[path.name] = digest_of(path.read_bytes())  # the file keeps its line ends and spaces
                stages.remove(stage)
            elif path.is_file() and not replace:
                raise DataError(
                    f"Expected {path} to match the split {settings}, but its entries differ. Delete it, or write all "
                    "index files again with --data.overwrite_split true."
                )
            elif not entries:
                raise DataError(
                    f"Expected images for each of train, val and test in {self.root}, but {settings} leaves none for "
                    f"{stage}. Add images, or change the fractions."
                )
        store.folder.mkdir(parents=True, exist_ok=True)
        write_description(store.folder, DatasetInfo([], {}, settings, {}, digests, {}))
        for stage, entries in parts.items():
            if stage in stages:
                write_index(store.index(stage), entries)

    def _open(self) -> tuple[Path | None, dict[str, int]]:
        """Return the path of the decoded images, and the row of each file in them."""
        if self.cache == "none":
            return None, {}
        for _ in range(2):
            if self.store.open(self.description) is not None:
                rows = {file: row for row, file in enumerate(self.store.files())}
                return self.store.cache_of(self.description), rows
            self._description = None  # the cache was deleted: the next access creates it again
        raise DataError(f"The cache in {self.root} cannot be opened after it was written. Use --data.cache none.")


def _are_close(first: Sequence[tuple[Any, Any]], second: Sequence[tuple[Any, Any]]) -> bool:
    """Return whether means and standard deviations agree to 1e-3; a single number stands for all channels."""
    return len(first) == len(second) and all(
        np.allclose(mean, other_mean, atol=1e-3) and np.allclose(std, other_std, atol=1e-3)
        for (mean, std), (other_mean, other_std) in zip(first, second, strict=True)
    )
