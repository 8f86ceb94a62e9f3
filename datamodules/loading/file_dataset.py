"""A dataset of image files given by their paths."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.errors import DataError, ImageError
from datamodules.loading.dataset import ImageDataset
from datamodules.reading.decode import Resize


class FileDataset(ImageDataset):
    """Image files whose targets are their positions. Files that cannot be read are left out of the batch.

    Args:
        files: Their paths.
        size: Side in pixels to which images are resized.
        resize: How images are resized.
        transform: Applied to each image, uint8 ``(3, H, W)``, after loading.
    """

    def __init__(
        self,
        files: Sequence[str],
        size: int,
        resize: Resize = "crop",
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(Path(), [(file, i) for i, file in enumerate(files)], size, resize, transform)

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        try:
            return super().__getitems__(batch)
        except DataError:  # of one file: load the others without it
            readable = [position for position in batch[1].tolist() if self.problem(position) is None]
            if not readable:
                return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
            return super().__getitems__((batch[0], torch.tensor(readable)))

    def problem(self, position: int) -> str | None:
        """Return why a file cannot be read or transformed, or None if it can."""
        try:
            super().__getitems__((0, torch.tensor([position])))
        except DataError as error:
            return error.reason if isinstance(error, ImageError) else str(error)
        return None
