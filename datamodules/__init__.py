"""Data modules: prepare archives and folders of images, and load augmented, normalised batches."""

from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.errors import DataError
from datamodules.folder import FolderDataModule
from datamodules.sample import SampleDataModule
from datamodules.transforms.batch import (
    AlternatingFlip,
    CutMix,
    Cutout,
    MixUp,
    ProgressiveResize,
    RandomCrop,
    RandomHorizontalFlip,
)

__all__ = [
    "AlternatingFlip",
    "CIFAR10DataModule",
    "CutMix",
    "Cutout",
    "DataError",
    "FolderDataModule",
    "ImageDataModule",
    "MixUp",
    "ProgressiveResize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "SampleDataModule",
]
