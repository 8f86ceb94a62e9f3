"""Load training images from their original files, in the size and shape that these have."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from datamodules.errors import DataError
from datamodules.loading.dataset import ImageDataset
from datamodules.preparation.index import Entry
from datamodules.reading.random_crop import can_reduce, read_crop, read_pixels
from datamodules.transforms.image import Transform, seeded, split_first


class OriginalsDataset(ImageDataset):
    """Images whose transform receives the original pixels, uint8 ``(C, H, W)``; ``load`` returns resized ones.

    If the transform begins with a RandomResizedCrop, large JPEG files are decoded at a reduced scale.
    """

    def __post_init__(self, entries: Sequence[Entry]) -> None:
        super().__post_init__(entries)
        first, rest = split_first(self.transform)
        self._crop: Any = first if can_reduce(first) else None
        self._rest = self.transform if self._crop is None else rest

    def __getitems__(self, batch: tuple[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return images as the transform returns them, ``(N, C, H, W)``, and targets, int64 ``(N,)``.

        Args:
            batch: The seed of random transforms, and the positions, int64 ``(N,)``.

        Raises:
            DataError: A file is missing or not an image, or the transform fails or returns images of several sizes.
        """
        seed, positions = batch
        images: Tensor | None = None
        with seeded(seed):
            for place, path in enumerate(self.paths(positions)):
                image = self._read(path)
                if images is None:  # a list of images until the last one would fragment the memory of a worker
                    images = image.new_empty(len(positions), *image.shape)
                if image.shape != images.shape[1:]:
                    expected, got = (f"{shape[-1]}x{shape[-2]}" for shape in (images.shape, image.shape))
                    raise DataError(
                        f"{path}: Expected {expected} pixels from --data.train_transforms, as from other images, but "
                        f"got {got}. Make every image {expected}."
                    )
                images[place] = image
        return cast(Tensor, images), self.targets.index_select(0, positions)

    def _read(self, path: str) -> Tensor:
        rest = cast(Transform, self._rest)
        if self._crop is None:
            return rest(read_pixels(path, self.channels))
        return rest(read_crop(path, self._crop, self.channels))


def check_size(transform: Transform | None, size: int, channels: int = 3) -> None:
    """Raise DataError unless a transform makes images of any shape ``size`` x ``size``, tried on two shapes."""
    for shape in ((channels, 2 * size, 3 * size), (channels, 3 * size, 2 * size)):
        image = torch.zeros(shape, dtype=torch.uint8)
        if transform is not None:
            with seeded(0):
                image = transform(image)
        if image.shape != (channels, size, size):
            before, after = (f"{each[-1]}x{each[-2]}" for each in (shape, image.shape))
            raise DataError(
                f"Expected --data.train_transforms that make every image {size}x{size}, the size of validation images, "
                f"because of --data.originals true, but {before} becomes {after}. Put torchvision.transforms.v2."
                f"RandomResizedCrop with size {size} first, or change --data.image_size."
            )
