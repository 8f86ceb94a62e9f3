"""Read the images of an index file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError
from datamodules.index import Entry


def read_rgb(path: Path) -> np.ndarray:
    """Return the pixels of an image file, uint8 ``(H, W, 3)``.

    Raises:
        DataError: The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. Put it back, or take its line out of the index file.") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's errors for damaged files
        raise DataError(f"{path} is not a readable image ({error}). Replace it, or take its line out.") from error


class ImageDataset(Dataset):
    """The images of an index file, in its order.

    An item is the image, uint8 ``(3, H, W)`` before and whatever ``transform`` makes of it after, and its label.

    Args:
        root: Folder that the paths are relative to.
        entries: Paths and labels.
        transform: Applied to each image.
    """

    def __init__(self, root: Path, entries: Sequence[Entry], transform: Callable[[Tensor], Tensor]) -> None:
        self.root = root
        self.entries = entries
        self.transform = transform

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.transform(self.load(position)), self.entries[position][1]

    def load(self, position: int) -> Tensor:
        """Return the image as it is on disk, uint8 ``(3, H, W)``."""
        pixels = read_rgb(self.root / self.entries[position][0])
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
