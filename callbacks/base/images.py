"""The base class of callbacks that run the network on selected validation images."""

from typing import Any, NamedTuple

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from callbacks.base.drawing import DrawingCallback


class Selection(NamedTuple):
    """Selected validation images as input of the network."""

    images: Tensor  # normalised, float (N, 3, H, W), on the device of the module
    targets: Tensor  # int64 (N,)
    batch_size: int  # batch size in validation


class ImageCallback(DrawingCallback):
    """Run the network on selected validation images; subclasses override ``collect``.

    ``collect`` is called before the first validation batch of an epoch on rank zero, with the module in eval mode; with
    ``WeightAveraging``, the module has the averaged weights. In the sanity check, ``collect`` is called as a test, but
    nothing is drawn. A subclass that uses layers overrides ``find_layers``.

    Args:
        images: Number of images, distributed evenly over the classes, or their positions in the validation set.
        random: Whether to select other images in each epoch.
        every_n_epochs: Run in every n-th epoch and the last planned one.
    """

    needs_network = True

    def __init__(self, images: int | list[int] = 4, random: bool = False, every_n_epochs: PositiveInt = 1) -> None:
        super().__init__(every_n_epochs)
        what = f"images of {type(self).__name__}"
        if images == [] or (isinstance(images, int) and images < 1):
            raise MisconfigurationException(f"Expected {what} to be at least 1, or positions, but got {images}.")
        if random and not isinstance(images, int):
            raise MisconfigurationException(f"Expected a number for random {what}, but got positions {images}.")
        self.images = images
        self.random = random

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.find_layers(pl_module)  # on every rank, before training

    def find_layers(self, pl_module: LightningModule) -> dict[str, nn.Module]:
        """Return the layers that ``collect`` uses; raise MisconfigurationException if one does not exist."""
        return {}

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or dataloader_idx or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        if self.sharded or not (trainer.sanity_checking or self.due(trainer)):
            return
        selection = self._choose(trainer, pl_module, batch)
        gathered = self.collect(trainer, pl_module, selection)
        if gathered is not None and not trainer.sanity_checking:
            self.draw_later(trainer, *gathered)

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        """Return the arguments of ``draw``, all on the CPU; None if there is nothing to draw."""
        raise NotImplementedError

    def _choose(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> Selection:
        loader: Any = trainer.val_dataloaders
        loader = loader[0] if isinstance(loader, list) else loader
        dataset: Any = getattr(loader, "dataset", None)
        if not hasattr(dataset, "__len__"):  # an iterable dataset: only this batch is available
            images, targets = batch
        else:
            positions = self._positions(dataset, trainer.current_epoch)
            if render := getattr(loader, "render", None):  # that of this project decodes the images together
                images, targets = render(positions, 0)
            else:
                images, targets = loader.collate_fn([dataset[position] for position in positions.tolist()])
        count = self.images if isinstance(self.images, int) else len(self.images)
        images = images[:, 0] if images.ndim == 5 else images  # the first of several views of an image
        return Selection(images[:count].to(pl_module.device), targets[:count].to(pl_module.device), len(batch[0]))

    def _positions(self, dataset: Any, epoch: int) -> Tensor:
        size = len(dataset)
        if isinstance(self.images, int):
            if self.random:
                return torch.randperm(size, generator=torch.Generator().manual_seed(epoch))[: self.images]
            return spread(getattr(dataset, "targets", None), size, self.images)
        if max(self.images) >= size or min(self.images) < 0:
            raise MisconfigurationException(
                f"Expected positions in images of {type(self).__name__} below {size}, the number of validation images, "
                f"but got {self.images}."
            )
        return torch.tensor(self.images)


def spread(targets: Any, size: int, count: int) -> Tensor:
    """Return positions of ``count`` images of a dataset, distributed evenly over the classes if these are known.

    Args:
        targets: Class of each image, int64 ``(size,)``; any other value if unknown.
        size: Number of images.
        count: Number of positions, or ``size`` if that is less.
    """
    count = min(count, size)
    if not isinstance(targets, Tensor) or targets.shape != (size,) or targets.is_floating_point():
        return torch.linspace(0, size - 1, count).round().long()
    targets = targets.cpu()
    by_class = targets.argsort(stable=True)
    sizes = torch.bincount(targets)
    # number of earlier images of the same class
    rank = torch.arange(size) - (sizes.cumsum(0) - sizes)[targets[by_class]]
    order = by_class[rank.argsort(stable=True)]  # the first image of each class, then the second, ...
    classes = int((sizes > 0).sum())
    return order[torch.linspace(0, classes - 1, count).round().long()] if count < classes else order[:count]
