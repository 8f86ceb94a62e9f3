"""Load the images of an index file by position, from image files or from decoded pixels."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError
from datamodules.preparation.describe import Prepared
from datamodules.preparation.index import Entry
from datamodules.reading.decode import Resize
from datamodules.reading.read_images import paths_of, read_images
from datamodules.transforms.image import seeded


class ImageDataset(Dataset):
    """The images of an index file.

    Args:
        root: Folder to which the paths are relative.
        entries: Paths and labels.
        size: Side of the images in pixels.
        resize: How images of another size are resized; None if another size is an error.
        transform: Applied to each image, uint8 ``(3, H, W)``, after loading.
        pixels: Decoded images, uint8 ``(M, 3, H, W)``; if None, image files are read.
        rows: Row of each entry in ``pixels``; by default, entries and rows are in the same order.
        cache: The ``.npy`` file that ``pixels`` map, if they do.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[Entry],
        size: int,
        resize: Resize | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        pixels: Tensor | None = None,
        rows: Tensor | None = None,
        cache: Path | None = None,
    ) -> None:
        self.root = root
        self.files = [file for file, _ in entries]
        self.paths = paths_of(root, self.files) if pixels is None else None
        self.size = size
        self.resize = resize
        self.transform = transform
        self.pixels = pixels
        self.rows = rows
        self.cache = cache
        self.targets = torch.tensor([label for _, label in entries], dtype=torch.int64)

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        stage: str,
        class_names: Sequence[str],
        transform: Callable[[Tensor], Tensor] | None = None,
        pixels: Tensor | None = None,
    ) -> "ImageDataset":
        """Return the images of a stage, with labels that are positions in ``class_names``; ``pixels`` map the cache."""
        label_of = [class_names.index(name) for name in prepared.class_names]
        entries = [(file, label_of[label]) for file, label in prepared.entries[stage]]
        rows = None
        if pixels is not None:
            row_of = {file: row for row, file in enumerate(prepared.files)}
            rows = torch.tensor([row_of[file] for file, _ in entries])
        folder = prepared.folder
        return cls(folder.images, entries, prepared.size, folder.resize, transform, pixels, rows, prepared.cache)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude mapped pixels, which a spawned worker maps again: pickling would copy them all."""
        return self.__dict__ if self.cache is None else {**self.__dict__, "pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.cache is not None:
            self.pixels = map_pixels(self.cache)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Return an image as the transform returns it, or else uint8 ``(3, H, W)``, and its label; see ``load``."""
        images, targets = self.load(torch.tensor([range(len(self))[position]]))
        return images[0] if self.transform is None else self.transform(images[0]), int(targets[0])

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images, uint8 ``(N, 3, H, W)`` or as the transform returns them, and targets, int64 ``(N,)``.

        Args:
            batch: The seed of random transforms, and the positions, int64 ``(N,)``.

        Raises:
            DataError: A file is missing or not an image, or the transform returns images of several sizes.
        """
        seed, positions = batch
        images, targets = self.load(positions)
        if self.transform is None:
            return images, targets
        with seeded(seed):
            transformed = [self.transform(image) for image in images]
        if len(shapes := {tuple(image.shape) for image in transformed}) > 1:
            raise DataError(f"Expected transforms that return images of one size, but got {sorted(shapes)}.")
        return torch.stack(transformed), targets

    def to_device(self, device: torch.device) -> None:
        """Copy the decoded images of this dataset to a device, and load them from there."""
        assert self.pixels is not None, "only decoded images can be moved to a device"
        own = self.pixels if self.rows is None else self.pixels.index_select(0, self.rows)
        self.pixels, self.rows, self.targets = own.to(device), None, self.targets.to(device)
        self.cache = None

    def load(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return images before transforms, uint8 ``(N, 3, H, W)``, and targets, int64 ``(N,)``."""
        positions = positions.to(self.targets.device)
        targets = self.targets.index_select(0, positions)
        if self.paths is not None:
            chosen = [self.paths[position] for position in positions.tolist()]
            return torch.from_numpy(read_images(chosen, self.size, self.resize)), targets
        assert self.pixels is not None
        rows = positions if self.rows is None else self.rows.index_select(0, positions)
        return self.pixels.index_select(0, rows), targets


def map_pixels(path: Path) -> Tensor:
    """Return the memory-mapped array of an ``.npy`` file. It is read-only: writing to it crashes the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))
