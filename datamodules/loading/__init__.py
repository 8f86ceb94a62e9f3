"""Datasets and data loaders whose batches depend only on seed and epoch."""
