"""Load images by position, from image files or from decoded pixels."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import ImageError
from datamodules.loading.read_ahead import LEAST, read_ahead
from datamodules.preparation.describe import Prepared
from datamodules.preparation.index import Entry
from datamodules.reading.decode import Resize
from datamodules.reading.read_images import paths_of, read_images
from datamodules.transforms.image import Transform, seeded


@dataclasses.dataclass(eq=False)
class ImageDataset(Dataset):
    """The images of an index file.

    Args:
        root: Folder to which the paths are relative.
        entries: Paths and labels.
        size: Side of the images in pixels.
        resize: How images of another size are resized; None if another size is an error.
        transform: Applied to each image, uint8 ``(C, H, W)``, after loading.
        pixels: Decoded images, uint8 ``(M, C, H, W)``; if None, image files are read.
        rows: Row of each entry in ``pixels``, int64 ``(N,)``; by default, entries and rows are in the same order.
        cache: The ``.npy`` file that ``pixels`` map, if they do.
        skip_unreadable: Leave files that cannot be read out of a batch.
        channels: Number of channels C of the images.
    """

    root: Path
    entries: dataclasses.InitVar[Sequence[Entry]]
    size: int
    resize: Resize | None = None
    transform: Transform | None = None
    pixels: Tensor | None = None
    rows: Tensor | None = None
    cache: Path | None = None
    skip_unreadable: bool = False
    channels: int = 3

    def __post_init__(self, entries: Sequence[Entry]) -> None:
        self.files = [file for file, _ in entries]
        self.targets = torch.tensor([label for _, label in entries], dtype=torch.int64)

    @classmethod
    def of(
        cls, prepared: Prepared, split: str, names: Sequence[str], transform: Transform | None, pixels: Tensor | None
    ) -> "ImageDataset":
        """Return the images of a split, with labels that are positions in ``names``; ``pixels`` map the cache."""
        folder = prepared.folder
        label_of = [names.index(name) for name in prepared.class_names]
        entries = [(file, label_of[label]) for file, label in prepared.entries[split]]
        if pixels is None:
            return cls(folder.images, entries, prepared.size, folder.resize, transform, channels=folder.channels)
        row_of = {file: row for row, file in enumerate(prepared.rows)}
        rows = torch.tensor([row_of[file] for file, _ in entries])
        arguments = folder.images, entries, prepared.size, folder.resize, transform, pixels, rows, prepared.cache
        return cls(*arguments, channels=folder.channels)

    @classmethod
    def of_files(
        cls,
        files: Sequence[str],
        size: int,
        resize: Resize = "crop",
        transform: Transform | None = None,
        channels: int = 3,
    ) -> "ImageDataset":
        """Return image files whose targets are their positions; those that cannot be read are left out of a batch."""
        entries = [(file, position) for position, file in enumerate(files)]
        return cls(Path(), entries, size, resize, transform, skip_unreadable=True, channels=channels)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude mapped pixels, which a spawned worker maps again: pickling would copy them all."""
        return self.__dict__ if self.cache is None else {**self.__dict__, "pixels": None}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Return an image and its label as in a batch of its own with the seed 0."""
        images, targets = self.__getitems__((0, torch.tensor([range(len(self))[position]])))
        return images[0], int(targets[0])

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images, uint8 ``(N, C, H, W)`` or as the transform returns them, and targets, int64 ``(N,)``.

        Args:
            batch: The seed of random transforms, and the positions, int64 ``(N,)``.

        Raises:
            DataError: A file is missing or not an image, or the transform fails.
        """
        seed, positions = batch
        images, targets = self.load(positions)
        if self.transform is None or not len(images):
            return images, targets
        with seeded(seed):
            return torch.stack([self.transform(image) for image in images]), targets

    def load(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return images before transforms, uint8 ``(N, C, H, W)``, and targets, int64 ``(N,)``."""
        positions = positions.to(self.targets.device)
        if self.pixels is None and self.cache is not None:  # in a spawned worker
            self.pixels = map_pixels(self.cache)
        if self.transform is not None:  # in a worker; otherwise, the loader has done so
            self.read_ahead(positions)
        if self.pixels is not None:
            rows = positions if self.rows is None else self.rows.index_select(0, positions)
            return self.pixels.index_select(0, rows), self.targets.index_select(0, positions)
        errors: dict[int, ImageError] | None = {} if self.skip_unreadable else None
        pixels = read_images(self.paths(positions), self.size, self.resize, errors, channels=self.channels)
        images = torch.from_numpy(pixels)
        if errors:
            readable = [place for place in range(len(positions)) if place not in errors]
            images, positions = images[readable], positions[readable]
        return images, self.targets.index_select(0, positions)

    def read_ahead(self, positions: Tensor) -> None:
        """Start reading the pixels of images, if they are cached on disk."""
        nbytes = self.channels * self.size**2
        if self.cache is not None and nbytes >= LEAST:
            rows = positions if self.rows is None else self.rows.index_select(0, positions)
            read_ahead(self.cache, rows.tolist(), nbytes)

    def paths(self, positions: Tensor) -> list[str]:
        return paths_of(self.root, [self.files[position] for position in positions.tolist()])

    def to_device(self, device: torch.device) -> None:
        """Copy the decoded images of this dataset to a device, and load them from there."""
        assert self.pixels is not None, "only decoded images can be moved to a device"
        pixels = self.pixels if self.rows is None else self.pixels.index_select(0, self.rows)
        self.pixels, self.rows, self.cache = pixels.to(device), None, None
        self.targets = self.targets.to(device)


def map_pixels(path: Path) -> Tensor:
    """Return the memory-mapped array of an ``.npy`` file. It is read-only: writing to it crashes the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))
