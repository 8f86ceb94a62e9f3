"""Precision-recall and ROC curves of each class."""

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_roc

from callbacks.base.log import LogSnapshot
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.fonts import names_in_figures


class PRROCCurves(PredictionCallback):
    """Draw the one-vs-rest PR curve and ROC curve of each class at the end of validation and test.

    Tags: ``pr/<class>`` (TensorBoard's PR curve of each class that has images), ``pr/right_or_wrong`` (the PR curve of
    confidence as a predictor of correct predictions), ``roc/val`` and ``roc/test`` (all ROC curves in one image, each
    with its AUC).

    Args:
        max_classes: Maximum number of classes to draw, from the first; at most 100.
    """

    def __init__(self, max_classes: PositiveInt = 10, every_n_epochs: PositiveInt | None = 10) -> None:
        super().__init__(every_n_epochs)
        self.max_classes = max_classes

    def draw(self, log: LogSnapshot, stage: str, predictions: Predictions) -> None:
        probabilities = predictions.probabilities[:, : self.max_classes].nan_to_num(0)
        names, targets = predictions.class_names[: probabilities.shape[1]], predictions.targets
        curves = {f"pr/{name}": (targets == i, probabilities[:, i]) for i, name in enumerate(names)}
        curves["pr/right_or_wrong"] = (predictions.preds == targets, predictions.confidences.nan_to_num(0))
        for tag, (positive, confidences) in curves.items():
            for writer in log.writers if positive.any() else ():
                writer.add_pr_curve(tag, positive, confidences, log.step)
        log.figure(f"roc/{stage}", draw_roc(probabilities, targets, names, log.moment))


def draw_roc(probabilities: Tensor, targets: Tensor, names: list[str], moment: str) -> Figure:
    """Return a figure of the ROC curves of classes that have images, sorted by AUC, lowest first."""
    curves = []
    for number, name in enumerate(names_in_figures(names)):
        positive = targets == number
        if positive.any() and not positive.all():
            false, true, _ = binary_roc(probabilities[:, number], positive.long())
            curves.append((float(torch.trapezoid(true, false)), name, false.numpy(), true.numpy()))
    figure = Figure(figsize=(5, 5), dpi=100)
    axes = figure.subplots()
    for number, (area, name, x, y) in enumerate(sorted(curves, key=lambda curve: curve[0])):
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axes.plot(x, y, style, label=f"{name} {area:.3f}".lstrip("_"), linewidth=1.2)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"One class vs. rest, {moment}")
    if curves:
        axes.legend(title="area below", fontsize=9, loc="lower right", ncols=-(-len(curves) // 12))
    return figure
