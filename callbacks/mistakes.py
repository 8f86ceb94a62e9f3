"""Misclassified images with the highest confidence."""

import math
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from atomic_files import write_atomically
from callbacks.base.log import LogSnapshot, write_csv
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.histogram import gather
from callbacks.tools.layers import denormalized, names_of
from callbacks.tools.pictures import sheet
from callbacks.tools.transfer import to_cpu

Row = tuple[str, str, str, float, float]  # file, true and predicted class, confidence, loss


class TopMistakes(PredictionCallback):
    """Draw the wrong predictions with the highest confidence, with true and predicted class, and list their files.

    They are often mislabelled images. Needs a module whose ``validation_step`` and ``test_step`` return ``preds`` and
    ``logits``; the names of files come from the data loader's ``paths(batch_idx)``, if it has this method.

    Tags: ``mistakes/val`` and ``mistakes/test``; ``confidence/right`` and ``confidence/wrong`` (histograms of the
    probability of the predicted class). The mistakes are also in ``mistakes_val.csv`` and ``mistakes_test.csv`` in the
    run directory, and their images, one below the other, in ``mistakes_val.png`` and ``mistakes_test.png``.

    Args:
        count: Number of mistakes to draw.
        every_n_epochs: Draw in every n-th epoch and the last planned one.
    """

    required_media = ("images", "histograms")
    required_outputs = ("preds", "logits")

    def __init__(self, count: PositiveInt = 24, every_n_epochs: PositiveInt = 1) -> None:
        super().__init__(every_n_epochs)
        self.count = count
        self._worst: dict[str, Tensor] = {}
        self._files: list[str] = []  # files of the worst mistakes

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._worst = {}

    on_test_epoch_start = on_validation_epoch_start

    def collect_batch(self, outputs: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        assert self._collector is not None, "it has collected this batch"
        images, targets = batch
        latest = self._collector.batches[-1]
        confidences = latest.confidences
        wrong = (outputs["preds"] != targets) & (targets != self._collector.ignored)
        new = highest(
            {
                # correct predictions rank last, after all mistakes
                "confidences": confidences.where(wrong, -1.0).nan_to_num(-1.0),
                "losses": latest.losses,
                "targets": targets,
                "preds": outputs["preds"],
                "batches": torch.full_like(targets, batch_idx),
                "places": torch.arange(len(targets), device=targets.device),
                "images": images[:, 0] if images.ndim == 5 else images,  # the first of several views of an image
            },
            self.count,
        )
        self._worst = worst_of([self._worst, new], self.count) if self._worst else new

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._gather(trainer, pl_module, trainer.val_dataloaders)
        super().on_validation_epoch_end(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._gather(trainer, pl_module, trainer.test_dataloaders)
        super().on_test_epoch_end(trainer, pl_module)

    def _gather(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> None:
        """Gather the worst mistakes of all ranks, with their files, on the CPU."""
        if self._collector is None or not self._worst:
            return
        worst = to_cpu(self._worst | {"images": denormalized(pl_module, self._worst["images"])})
        paths = getattr(loader[0] if isinstance(loader, list) else loader, "paths", None)
        places = zip(worst["batches"].int().tolist(), worst["places"].int().tolist(), strict=True)
        files = [str(paths(batch)[place]) if callable(paths) else "" for batch, place in places]
        ranks: list[Any] = [(worst, files)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(ranks, (worst, files))
        self._files = [file for _, files in ranks for file in files]
        numbers = {"files": torch.arange(len(self._files))}
        self._worst = worst_of(
            [{name: torch.cat([tensors[name] for tensors, _ in ranks]) for name in worst} | numbers], self.count
        )

    def on_predictions(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, predictions: Predictions
    ) -> None:
        worst, self._worst = self._worst, {}
        names = names_of(pl_module, int(max(predictions.targets.max(), predictions.preds.max())) + 1)
        count = int((worst["confidences"] >= 0).sum())
        classes = ([names[int(index)] for index in worst[key]] for key in ("targets", "preds"))
        files = [self._files[number] for number in worst["files"]]
        rows = list(zip(files, *classes, worst["confidences"].tolist(), worst["losses"].tolist(), strict=True))[:count]
        self.draw_later(trainer, stage, worst["images"][:count], rows, predictions, names)

    def draw(
        self, log: LogSnapshot, stage: str, images: Tensor, rows: list[Row], predictions: Predictions, names: list[str]
    ) -> None:
        right = predictions.preds == predictions.targets
        confidences = {name: predictions.confidences[mask] for name, mask in (("right", right), ("wrong", ~right))}
        for name, statistics in gather(confidences).items():
            if statistics.histogram is not None:
                log.histogram(f"confidence/{name}", statistics.histogram)
        table = [[*row[:3], f"{row[3]:.6f}", "" if math.isnan(row[4]) else f"{row[4]:.6f}"] for row in rows]
        write_csv(log.folder / f"mistakes_{stage}.csv", [["path", "true", "predicted", "confidence", "loss"], *table])
        if rows:
            shown = dict(zip(names, names_in_pictures(names), strict=True))
            captions = [
                [f"true: {shown[true]}", f"predicted: {shown[predicted]}", f"{sure:.0%}"]
                for _, true, predicted, sure, _ in rows
            ]
            caption = f"Most confident of {int((~right).sum()):,} mistakes among {len(right):,}, {stage}, {log.moment}"
            log.image(f"mistakes/{stage}", sheet(images, captions, side=128), caption)
            with write_atomically(log.folder / f"mistakes_{stage}.png") as partial:
                to_pil_image(images.clamp(0, 1).transpose(0, 1).flatten(1, 2)).save(partial, "PNG")


def worst_of(parts: list[dict[str, Tensor]], count: int) -> dict[str, Tensor]:
    """Return the ``count`` images of the parts with the highest confidences, in descending order."""
    return highest({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, count)


def highest(columns: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the ``count`` rows of the columns with the highest confidences, in descending order.

    Equal confidences keep their order, which is undefined in ``topk``.
    """
    order = columns["confidences"].argsort(descending=True, stable=True)[:count]
    return {name: column[order] for name, column in columns.items()}
