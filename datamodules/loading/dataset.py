"""Fetch the images of an index file by their positions in it, from files or from decoded pixels."""

import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError
from datamodules.preparation.index import Entry
from datamodules.reading.decode import Resize, read_rgb, read_square
from datamodules.reading.png import MAX_FILE, decode_pngs


def read_images(
    paths: Sequence[str],
    size: int,
    resize: Resize | None,
    on_error: Callable[[int, DataError], None] | None = None,
    on_loss: Callable[[int, str], None] | None = None,
) -> np.ndarray:
    """Return the pixels of image files, uint8 ``(N, 3, size, size)``.

    Args:
        paths: The files. Those that ``encode_pngs`` wrote are read several times faster than others.
        size: Side of the result in pixels.
        resize: How an image of another size is made to fit; None if it is an error.
        on_error: Called with the position of a file that cannot be read, whose pixels are then black.
        on_loss: Called with the position of a file, and a key of ``decode.LOSSES`` that applies to it.

    Raises:
        DataError: A file is missing, no image or of another size, and there is no ``on_error``.
    """
    pixels = _read_own(paths)
    if pixels is not None and pixels.shape[1:3] == (size, size):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    images = np.zeros((len(paths), 3, size, size), np.uint8)
    for position, path in enumerate(paths):
        try:
            note = None if on_loss is None else partial(on_loss, position)
            images[position] = _read_one(path, size, resize, note).transpose(2, 0, 1)
        except DataError as error:
            if on_error is None:
                raise
            on_error(position, error)
    return images


def _read_one(path: str, size: int, resize: Resize | None, on_loss: Callable[[str], None] | None = None) -> np.ndarray:
    if resize is not None:
        return read_square(path, size, resize, on_loss)
    pixels = read_rgb(path, on_loss)
    height, width, _ = pixels.shape
    if (height, width) != (size, size):
        raise DataError(
            f"Expected images of {size}x{size} pixels, as the first is, but {path} has {width}x{height}. Give "
            "--data.image_size to bring all images to one size."
        )
    return pixels


def paths_of(root: Path, files: Sequence[str]) -> list[str]:
    """Return where files lie, ten times as fast as ``root / file`` for each."""
    folder = os.path.join(root, "")
    return [os.path.join(root, file) if file[0] == "/" or file[1:2] == ":" else folder + file for file in files]


def _read_own(paths: Sequence[str]) -> np.ndarray | None:
    """Return the pixels of files of ours, uint8 ``(N, H, W, 3)``, or None if there is any other."""
    contents = []
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY)  # a third of the time that open() takes
        except OSError:
            return None  # the general way says what is wrong
        try:
            contents.append(os.read(file, MAX_FILE + 1))
        except OSError:
            return None
        finally:
            os.close(file)
    return decode_pngs(contents) if contents else None


class ImageDataset(Dataset):
    """The images of an index file.

    Args:
        root: Folder that the paths are relative to.
        entries: Paths and labels.
        size: Side of the images in pixels.
        resize: How an image of another size is made to fit; None if it is an error.
        transform: Applied to each image, uint8 ``(3, H, W)``, on the way out.
        pixels: Decoded images, uint8 ``(M, 3, H, W)``, or the ``.npy`` file of them, to be mapped; without them, image
            files are read.
        rows: Row of each entry in ``pixels``; by default they are the same images in the same order.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[Entry],
        size: int,
        resize: Resize | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        pixels: Tensor | Path | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.root = root
        self.files = [file for file, _ in entries]
        self.paths = paths_of(root, self.files) if pixels is None else None
        self.size = size
        self.resize = resize
        self.transform = transform
        self._mapped = pixels if isinstance(pixels, Path) else None
        self.pixels = map_pixels(pixels) if isinstance(pixels, Path) else pixels
        self.rows = rows
        self.targets = torch.tensor([label for _, label in entries], dtype=torch.int64)
        if self.pixels is not None:
            self.targets = self.targets.to(self.pixels.device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave mapped pixels out, which a started worker maps anew: pickled, they would be copied whole."""
        return self.__dict__ if self._mapped is None else {**self.__dict__, "pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._mapped is not None:
            self.pixels = map_pixels(self._mapped)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """Return one image and its label; its transforms draw from the global random state."""
        images, targets = self.load(torch.tensor([position]))
        image = images[0] if self.transform is None else self.transform(images[0])
        return image, int(targets[0])

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return a batch.

        Args:
            batch: A seed, of which alone random transforms depend, and the positions, int64 ``(N,)``.

        Returns:
            Images, uint8 ``(N, 3, H, W)`` or what the transform makes of them, and targets, int64 ``(N,)``.

        Raises:
            DataError: A file is missing or no image, or the transform makes images of several sizes.
        """
        seed, positions = batch
        images, targets = self.load(positions)
        if self.transform is None:
            return images, targets
        with seeded(seed):
            made = [self.transform(image) for image in images]
        if len(shapes := {tuple(image.shape) for image in made}) > 1:
            raise DataError(f"Expected transforms that make images of one size, but got {sorted(shapes)}.")
        return torch.stack(made), targets

    def hold(self, device: torch.device) -> None:
        """Copy the decoded images of this dataset to a device, and fetch them there from now on."""
        assert self.pixels is not None, "only decoded images can be held"
        own = self.pixels if self.rows is None else self.pixels.index_select(0, self.rows)
        self.pixels, self.rows, self.targets = own.to(device), None, self.targets.to(device)
        self._mapped = None

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
    """Return the array in an ``.npy`` file, mapped from disk. Writing into it would end the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (on the CPU), and afterwards leave them as if nothing had been drawn."""
    states: tuple[Any, Any, Tensor] = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
