"""Augmented training images."""

from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.layers import denormalized, names_of
from callbacks.tools.pictures import sheet
from callbacks.tools.transfer import to_cpu


class TrainingBatch(DrawingCallback):
    """Draw the first training batch of an epoch, augmented and de-normalised, with its labels.

    Tags: ``training_batch``. For an image that was mixed from several, the two largest shares are shown.

    Args:
        count: Maximum number of images to draw, from the first.
        every_n_epochs: See ``DrawingCallback``; it also draws in the first epoch.
    """

    def __init__(self, count: PositiveInt = 24, every_n_epochs: PositiveInt | None = 10) -> None:
        super().__init__(every_n_epochs)
        self.count = count

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx or not trainer.is_global_zero or not (self.due(trainer) or trainer.current_epoch == 0):
            return
        images, targets = batch[0][: self.count], batch[1][: self.count]
        gathered = to_cpu({"images": denormalized(pl_module, images), "targets": targets})
        width = targets.shape[1] if targets.ndim == 2 else int(gathered["targets"].max()) + 1
        self.draw_later(trainer, gathered["images"], gathered["targets"], names_of(pl_module, width))

    def draw(self, log: LogSnapshot, images: Tensor, targets: Tensor, names: list[str]) -> None:
        names = names_in_pictures(names)
        captions = [labels(target, names) for target in targets]
        caption = f"Augmented training images, epoch {log.epoch}"
        log.image("training_batch", sheet(images, captions), caption)


def labels(target: Tensor, names: list[str]) -> list[str]:
    """Return the label of a target, a class or the shares ``(classes,)`` of several, as lines of text."""
    if target.ndim == 0:
        return [names[int(target)]]
    shares, classes = target.sort(descending=True, stable=True)
    pairs = zip(shares.tolist()[:2], classes.tolist()[:2], strict=True)
    return [f"{names[index]} {share:.0%}" for share, index in pairs if share > 0]
