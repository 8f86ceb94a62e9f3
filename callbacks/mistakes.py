"""Misclassified images with the highest confidence."""

from collections import defaultdict
from itertools import chain
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base.log import LogSnapshot
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.fonts import names_in_pictures
from callbacks.tools.histogram import gather
from callbacks.tools.layers import denormalized
from callbacks.tools.pictures import sheet
from callbacks.tools.transfer import from_all_ranks, to_cpu


class Mistake(NamedTuple):
    """A wrong prediction."""

    confidence: float  # probability of the predicted class
    loss: float
    target: int
    pred: int
    file: str
    image: Tensor  # (3, H, W) from 0 to 1


class TopMistakes(PredictionCallback):
    """Draw the wrong predictions with the highest confidence, with true and predicted class, and list their files.

    They are often mislabelled images. The names of files come from the data loader's ``paths(batch_idx)``, if it has
    this method.

    Tags: ``mistakes/val`` and ``mistakes/test``; ``confidence/right`` and ``confidence/wrong`` (histograms of the
    probability of the predicted class). The mistakes are also in ``mistakes_val.csv`` and ``mistakes_test.csv`` in the
    run directory.

    Args:
        count: Number of mistakes to draw.
    """

    def __init__(self, count: PositiveInt = 24, every_n_epochs: PositiveInt | None = None) -> None:
        super().__init__(every_n_epochs)
        self.count = count
        self._worst: dict[str, Tensor] = {}

    def collect_batch(self, collected: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        images, targets, preds = batch[0], collected["targets"], collected["preds"]
        columns = {
            # correct predictions rank last, after all mistakes
            "confidences": collected["confidences"].where(preds != targets, -1.0).nan_to_num(-1.0),
            "losses": collected["losses"],
            "targets": targets,
            "preds": preds,
            "batches": torch.full_like(targets, batch_idx),
            "places": torch.arange(len(targets), device=targets.device),
            "images": images[:, 0] if images.ndim == 5 else images,  # the first of several views of an image
        }
        columns = highest(columns, self.count)  # first, so that not all images are copied
        if batch_idx:
            columns = {name: torch.cat([self._worst[name], column]) for name, column in columns.items()}
        self._worst = highest(columns, self.count)

    def gather(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> tuple[Any, ...]:
        worst = to_cpu(self._worst | {"images": denormalized(pl_module, self._worst["images"])})
        paths: Any = getattr(loader, "paths", lambda batch_idx: defaultdict(str))
        numbers = [worst[name].tolist() for name in ("confidences", "losses")]
        true, predicted, *places = (worst[name].int().tolist() for name in ("targets", "preds", "batches", "places"))
        files = [str(paths(batch_idx)[place]) for batch_idx, place in zip(*places, strict=True)]
        rows = zip(*numbers, true, predicted, files, worst["images"], strict=True)
        mistakes = [Mistake(*row) for row in rows if row[0] >= 0]
        ranks = from_all_ranks(mistakes, trainer.world_size)
        return (sorted(chain(*ranks), key=lambda mistake: -mistake.confidence)[: self.count],)

    def draw(self, log: LogSnapshot, stage: str, predictions: Predictions, mistakes: list[Mistake]) -> None:
        right, names = predictions.preds == predictions.targets, predictions.class_names
        confidences = predictions.confidences
        log.histograms(gather({"confidence/right": confidences[right], "confidence/wrong": confidences[~right]}))
        rows = [[each.file, names[each.target], names[each.pred], each.confidence, each.loss] for each in mistakes]
        log.table(f"mistakes_{stage}.csv", ["path", "true", "predicted", "confidence", "loss"], rows)
        if not mistakes:
            return
        shown = names_in_pictures(names)
        captions = [[shown[each.target], f"as {shown[each.pred]}", f"{each.confidence:.0%}"] for each in mistakes]
        picture = sheet(torch.stack([each.image for each in mistakes]), captions, columns=4)
        caption = f"Most confident of {int((~right).sum()):,} mistakes among {len(right):,}, {stage}, {log.moment}"
        log.image(f"mistakes/{stage}", picture, f"{caption}: true class, as predicted class, its probability")


def highest(columns: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the ``count`` rows of the columns with the highest confidences, in descending order.

    Equal confidences keep their order, which is undefined in ``topk``.
    """
    order = columns["confidences"].argsort(descending=True, stable=True)[:count]
    return {name: column[order] for name, column in columns.items()}
