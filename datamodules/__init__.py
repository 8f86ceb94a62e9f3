"""What is trained on: from archives and folders to augmented, normalised batches."""

from datamodules.cifar10 import CIFAR10DataModule
from datamodules.errors import DataError
from datamodules.images import ImageDataModule
from datamodules.sample import SampleDataModule

__all__ = ["CIFAR10DataModule", "DataError", "ImageDataModule", "SampleDataModule"]
