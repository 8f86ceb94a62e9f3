"""Augmentation of batches on the device and of single images, and normalisation."""

from datamodules.transforms.image import ZCAWhitening

__all__ = ["ZCAWhitening"]
