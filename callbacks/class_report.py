"""Table of recall, precision, F1 and loss of each class."""

from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base.log import LogSnapshot, write_csv
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.layers import names_of

MOST_ROWS = 50  # rows of the table in TensorBoard; the file has all


class Row(NamedTuple):
    """Metrics of one class; NaN where the divisor is zero, such as the recall of a class without images."""

    name: str
    images: int
    recall: float
    precision: float
    f1: float
    loss: float  # mean over the images of the class


class ClassReport(PredictionCallback):
    """Report recall, precision, F1 and loss of each class.

    Needs a module whose ``validation_step`` and ``test_step`` return ``preds``; for the loss, it also needs ``logits``
    and a method ``image_losses`` like that of ``ImageClassifier``.

    Tags: ``class_report/val`` and ``class_report/test`` (text: a table, sorted by F1, lowest first). All classes, in
    order, are in ``class_report_val.csv`` and ``class_report_test.csv`` in the run directory: ratios from 0 to 1, loss
    in units of the loss, empty where the divisor is zero.

    Args:
        every_n_epochs: Write in every n-th epoch and the last planned one.
    """

    required_media = ("texts",)

    def on_predictions(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, predictions: Predictions
    ) -> None:
        names = names_of(pl_module, int(max(predictions.targets.max(), predictions.preds.max())) + 1)
        self.draw_later(trainer, stage, names, predictions)

    def draw(self, log: LogSnapshot, stage: str, names: list[str], predictions: Predictions) -> None:
        rows = report(names, predictions.targets, predictions.preds, predictions.losses)
        table = [[*row[:2], *("" if np.isnan(value) else f"{value:.6f}" for value in row[2:])] for row in rows]
        write_csv(log.folder / f"class_report_{stage}.csv", [["class", *Row._fields[1:]], *table])
        log.text(f"class_report/{stage}", f"{log.moment}\n\n{markdown(rows)}")


def report(names: list[str], targets: Tensor, preds: Tensor, losses: Tensor) -> list[Row]:
    """Return a row for each class.

    Args:
        names: Name of each class.
        targets: True class of each image, int64 ``(N,)``.
        preds: Predicted class of each image, int64 ``(N,)``.
        losses: Loss of each image, float ``(N,)``, or NaN.
    """
    size = len(names)
    true, predicted = (torch.bincount(classes, minlength=size).double() for classes in (targets, preds))
    true[true == 0] = torch.nan  # scores of an absent class are undefined
    right = torch.bincount(targets[targets == preds], minlength=size).double()
    loss = torch.zeros(size, dtype=torch.double).index_add_(0, targets, losses.double()) / true
    precision = (right / predicted).where(true > 0, torch.nan)
    values = torch.stack([right / true, precision, 2 * right / (true + predicted), loss], 1).tolist()
    counts = true.nan_to_num(0).int().tolist()
    return [Row(name, count, *of_class) for name, count, of_class in zip(names, counts, values, strict=True)]


def markdown(rows: list[Row]) -> str:
    """Return a table of the rows with the lowest F1 first, and the mean over the classes."""
    table = ["| class | images | recall | precision | F1 | loss |", "|---|---:|---:|---:|---:|---:|"]
    worst = sorted(rows, key=lambda row: row.f1 if row.f1 == row.f1 else 2)
    means = torch.tensor([row[2:] for row in rows]).nanmean(0).tolist()
    for row in (*worst[:MOST_ROWS], Row("mean over classes", sum(row.images for row in rows), *means)):
        shares = ["" if np.isnan(share) else f"{share:.1%}" for share in row[2:5]]
        loss = "" if np.isnan(row.loss) else f"{row.loss:.3f}"
        table.append(f"| {' | '.join([_escaped(row.name), f'{row.images:,}', *shares, loss])} |")
    more = f"\n\n{len(rows) - MOST_ROWS} more classes are in the file." if len(rows) > MOST_ROWS else ""
    return "\n".join(table) + more


def _escaped(name: str) -> str:
    return name.replace("|", r"\|").replace("<", "&lt;")
