"""What is trained on: from archives and folders to augmented, normalised batches."""

from datamodules.augment import (
    AlternatingFlip,
    CutMix,
    Cutout,
    MixUp,
    ProgressiveResize,
    RandomCrop,
    RandomHorizontalFlip,
)
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.description import Description
from datamodules.errors import DataError
from datamodules.folder import FolderDataModule
from datamodules.images import ImageDataModule
from datamodules.sample import SampleDataModule

__all__ = [
    "AlternatingFlip",
    "CIFAR10DataModule",
    "CutMix",
    "Cutout",
    "DataError",
    "Description",
    "FolderDataModule",
    "ImageDataModule",
    "MixUp",
    "ProgressiveResize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "SampleDataModule",
]
