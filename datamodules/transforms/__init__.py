"""Augmentation of batches on the device and of single images, and normalisation."""
