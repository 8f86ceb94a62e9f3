"""The base class of callbacks that run the network on selected validation images."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.tools.layers import Layers, find_layers

Images: TypeAlias = PositiveInt | list[NonNegativeInt]


class ImageCallback(DrawingCallback):
    """Run the network on selected validation images; subclasses override ``collect``.

    ``collect`` is called before the first validation batch of an epoch on rank zero, with the module in eval mode; with
    ``WeightAveraging``, the module has the averaged weights. In the sanity check, ``collect`` is called as a test, but
    nothing is drawn. A subclass that uses layers sets ``layer_types``, and may set ``layers`` to shell patterns.

    Args:
        images: Number of images, distributed evenly over the classes, or their positions in the validation set.
        every_n_epochs: See ``DrawingCallback``.
    """

    needs_network = True
    layer_types: Any = ()  # types of the layers that it uses by default
    most_layers: int | None = None  # maximum number of layers of these types
    layers: Sequence[str] | None = None  # patterns of names, instead of types

    def __init__(self, images: Images = 4, every_n_epochs: PositiveInt | None = None) -> None:
        super().__init__(every_n_epochs)
        self.images = images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.layer_types and not self.find_layers(pl_module):  # on every rank, before training
            rank_zero_warn(f"{type(self).__name__} logs nothing, because the network has no layer for it.")
            self.silent = True

    def find_layers(self, pl_module: LightningModule) -> Layers:
        """Return the layers that ``collect`` uses; raise MisconfigurationException if a pattern matches none."""
        return find_layers(pl_module, self.layers, self.layer_types, self.most_layers)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or dataloader_idx or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        if self.silent or not (trainer.sanity_checking or self.due(trainer)):
            return
        images, targets = self._select(trainer, batch)
        gathered = self.collect(trainer, pl_module, images.to(pl_module.device), targets.to(pl_module.device))
        if not trainer.sanity_checking:
            self.draw_later(trainer, *gathered)

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        """Return the arguments of ``draw``, all on the CPU.

        ``images`` are normalised, float ``(N, C, H, W)``, and ``targets`` int64 ``(N,)``, on the device of the module.
        """
        raise NotImplementedError

    def _select(self, trainer: Trainer, batch: Any) -> tuple[Tensor, Tensor]:
        loader: Any = trainer.val_dataloaders
        loader = loader[0] if isinstance(loader, list) else loader
        dataset: Any = getattr(loader, "dataset", None)
        if not hasattr(dataset, "__len__"):  # an iterable dataset: only this batch is available
            images, targets = batch
        else:
            positions = self._positions(dataset)
            if render := getattr(loader, "render", None):  # that of this project decodes the images together
                images, targets = render(positions, 0)
            else:
                images, targets = loader.collate_fn([dataset[position] for position in positions.tolist()])
        count = self.images if isinstance(self.images, int) else len(self.images)
        images = images[:, 0] if images.ndim == 5 else images  # the first of several views of an image
        return images[:count], targets[:count]

    def _positions(self, dataset: Any) -> Tensor:
        size = len(dataset)
        if isinstance(self.images, int):
            return spread(getattr(dataset, "targets", None), size, self.images)
        if not self.images or max(self.images) >= size or min(self.images) < 0:  # also, an index error breaks CUDA
            raise MisconfigurationException(
                f"Expected positions below {size} in images of {type(self).__name__}, but got {self.images}."
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
    by_class, sizes = targets.argsort(stable=True), torch.bincount(targets)
    earlier = torch.arange(size) - (sizes.cumsum(0) - sizes)[targets[by_class]]  # number of images of the same class
    order = by_class[earlier.argsort(stable=True)]  # the first image of each class, then the second, ...
    classes = int((sizes > 0).sum())
    return order[torch.linspace(0, classes - 1, count).round().long()] if count < classes else order[:count]
