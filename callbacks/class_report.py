"""Table of recall, precision, F1 and loss of each class, and the calibration error."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from callbacks.base.log import LogSnapshot, formatted
from callbacks.base.predictions import PredictionCallback, Predictions

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
    """Report recall, precision, F1 and loss of each class at the end of validation and test, and the calibration error.

    The expected calibration error is the mean difference between confidence and accuracy, over 15 bins of confidence
    (Guo et al., 2017, "On Calibration of Modern Neural Networks").

    Tags: ``class_report/val`` and ``class_report/test`` (text: a table, sorted by F1, lowest first). All classes, in
    order, are in ``class_report_val.csv`` and ``class_report_test.csv`` in the run directory: ratios from 0 to 1, loss
    in units of the loss, empty where the divisor is zero. ``calibration_val.csv`` and ``calibration_test.csv`` have
    the number of images, and their confidence, accuracy and calibration error, from 0 to 1.
    """

    def draw(self, log: LogSnapshot, stage: str, predictions: Predictions) -> None:
        rows = report(predictions.class_names, predictions.targets, predictions.preds, predictions.losses)
        log.table(f"class_report_{stage}.csv", ["class", *Row._fields[1:]], rows)
        right = predictions.targets == predictions.preds
        error = binary_calibration_error(predictions.confidences, right.int(), n_bins=15).item()
        means = predictions.confidences.mean().item(), right.float().mean().item(), error
        row = [len(right), *means]
        log.table(f"calibration_{stage}.csv", ["images", "confidence", "accuracy", "calibration_error"], [row])
        words = "Mean confidence {:.2%}, accuracy {:.2%}, expected calibration error {:.2%}".format(*means)
        log.text(f"class_report/{stage}", f"{log.moment}\n\n{words}.\n\n{markdown(rows)}")


def report(names: list[str], targets: Tensor, preds: Tensor, losses: Tensor) -> list[Row]:
    """Return a row for each class, from the class, the prediction and the loss (or NaN) of each image, ``(N,)``."""
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
    worst = sorted(rows, key=lambda row: 2 if math.isnan(row.f1) else row.f1)
    means = torch.tensor([row[2:] for row in rows]).nanmean(0).tolist()
    for row in (*worst[:MOST_ROWS], Row("mean over classes", sum(row.images for row in rows), *means)):
        name = row.name.replace("|", r"\|").replace("<", "&lt;")
        cells = [name, f"{row.images:,}", *(formatted(share, ".1%") for share in row[2:5]), formatted(row.loss, ".3f")]
        table.append(f"| {' | '.join(cells)} |")
    more = f"\n\n{len(rows) - MOST_ROWS} more classes are in the file." if len(rows) > MOST_ROWS else ""
    return "\n".join(table) + more
