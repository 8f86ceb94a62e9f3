"""Data modules: prepare archives and folders of images, and load augmented, normalised batches."""

from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.errors import DataError
from datamodules.folder import FolderDataModule
from datamodules.sample import SampleDataModule
from datamodules.transforms.auto_augment import RandAugment, TrivialAugmentWide
from datamodules.transforms.batch import (
    AlternatingFlip,
    CutMix,
    Cutout,
    MixUp,
    ProgressiveResize,
    RandomCrop,
    RandomHorizontalFlip,
)
from datamodules.transforms.boxes import RandomErasing, RandomResizedCrop
from datamodules.transforms.color import ColorJitter, RandomGrayscale
from datamodules.transforms.geometry import RandomAffine, RandomRotation

__all__ = [
    "AlternatingFlip",
    "CIFAR10DataModule",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "DataError",
    "FolderDataModule",
    "ImageDataModule",
    "MixUp",
    "ProgressiveResize",
    "RandAugment",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "SampleDataModule",
    "TrivialAugmentWide",
]
