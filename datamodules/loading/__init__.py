"""Datasets and loaders: batches that depend on nothing but seed and epoch."""
