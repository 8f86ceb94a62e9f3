"""Images for the checks, read without changing loaders and random states."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 8  # pixels of the reduced images, on which linear classifiers and distances are computed
MOST = 200_000_000  # pixels of cached images that are all read; of larger data, and of files, some images
SOME = 400
SEEN = 1000  # images that are compared as the network receives them
CHUNK = 500


class Summary(NamedTuple):
    """Statistics of each image of a split."""

    small: Tensor  # (N, 3 * SIDE * SIDE), reduced
    means: Tensor  # (N, 3), of each channel
    stds: Tensor  # (N,), over all pixels
    targets: Tensor  # int64 (N,)

    @property
    def std(self) -> float:
        """Standard deviation of all pixels, the mean over channels."""
        return float((self.stds**2 + self.means.var(0).mean()).mean().sqrt())


def summarize(batches: Iterator[tuple[Tensor, Tensor]]) -> Summary:
    """Return statistics of images, uint8 or float ``(N, 3, H, W)``."""
    rows: list[tuple[Tensor, ...]] = []
    for images, targets in batches:
        images = images.float()
        small = F.adaptive_avg_pool2d(images, SIDE).flatten(1)
        within = images.var((2, 3), correction=0).mean(1).sqrt()  # 0 for a constant image, also a coloured one
        rows.append((small, images.mean((2, 3)), within, labels_of(targets)))
    return Summary(*(torch.cat(column).cpu() for column in zip(*rows, strict=True)))


def labels_of(targets: Tensor) -> Tensor:
    """Return the class of each image; of the largest share if images are mixed."""
    return targets.argmax(1) if targets.is_floating_point() else targets


def positions_of(loader: Any, count: int) -> Tensor:
    """Return ``count`` random positions in the dataset of a loader, or all, the same in each call."""
    size = len(loader.dataset)
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:count]


def is_readable(loader: Any) -> bool:
    """Return whether a loader can return images by their positions, as those of this project do."""
    return hasattr(loader, "render") and hasattr(getattr(loader, "dataset", None), "load")


def plain(loader: Any) -> tuple[Summary, bool]:
    """Return statistics of the images before all transforms, and whether they are all images."""
    dataset = loader.dataset
    pixels = getattr(dataset, "pixels", None)
    read_all = pixels is not None and len(dataset) * pixels[0].numel() <= MOST
    positions = torch.arange(len(dataset)) if read_all else positions_of(loader, SOME)
    return summarize(map(dataset.load, positions.split(CHUNK))), len(positions) == len(dataset)


def seen(loader: Any, augmented: bool, most: int = SEEN) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield up to ``most`` random images as the network receives them, with or without transforms of whole batches."""
    if not is_readable(loader):  # of another DataModule: the first batches
        count = 0
        for images, targets, *_ in loader:
            yield images, targets
            if (count := count + len(images)) >= SOME:
                return
        return
    loader = copy.copy(loader)
    if not augmented and hasattr(loader.transform, "normalize"):
        loader.transform = type(loader.transform)([], loader.transform.normalize)
    most = most if loader.dataset.pixels is not None else min(most, SOME)
    for positions in positions_of(loader, most).split(CHUNK):
        images, targets = loader.render(positions, 0)
        yield (images[:, 0] if images.ndim == 5 else images), targets  # the first of several views
