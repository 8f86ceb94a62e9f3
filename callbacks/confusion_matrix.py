"""Confusion matrix, in numbers and in percent."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from callbacks.base.log import LogSnapshot
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.fonts import names_in_figures
from callbacks.tools.layers import evenly

MOST_NUMBERS = 20  # maximum number of classes with numbers in the cells; with more, they are not readable


class ConfusionMatrix(PredictionCallback):
    """Draw the confusion matrix at the end of validation and test.

    Tags: ``confusion_matrix/val`` and ``confusion_matrix/test`` (number of images; rows are true classes, columns
    predicted classes; recall in percent at the end of a row, precision at the end of a column, a dash for a class
    without images), ``confusion_matrix_normalised/val`` and ``.../test`` (percent of the images of a row). The latest
    numbers are also in ``confusion_matrix_val.csv`` and ``confusion_matrix_test.csv`` in the run directory.
    """

    def draw(self, log: LogSnapshot, stage: str, predictions: Predictions) -> None:
        names, size = predictions.class_names, len(predictions.class_names)
        pairs = predictions.targets * size + predictions.preds
        counts = torch.bincount(pairs, minlength=size**2).view(size, size).numpy()
        figure = draw_confusion_matrix(counts, names, log.moment)
        log.figure(f"confusion_matrix/{stage}", figure)
        in_percent(figure, counts)
        log.figure(f"confusion_matrix_normalised/{stage}", figure)
        rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
        log.table(f"confusion_matrix_{stage}.csv", [r"true \ predicted", *names], rows)


def draw_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], moment: str = "") -> Figure:
    """Return a figure of a confusion matrix.

    Args:
        counts: Integers ``(classes, classes)``; rows are true classes, columns predicted classes.
        class_names: Name of each class.
        moment: Epoch and kind of weights, for the title.
    """
    size, names = len(class_names), names_in_figures(class_names)
    true, predicted, right = counts.sum(1), counts.sum(0), counts.diagonal()
    with np.errstate(invalid="ignore"):  # classes without images
        recall, precision = right / true, np.where(true > 0, right / predicted, np.nan)
    side = min(max(3.5 + 0.55 * size, 5), 16)
    room = max(max(map(len, names)) - 8, 0) * 0.08  # inches, for names that are longer than those of CIFAR-10
    figure = Figure(figsize=(side + room, side + 0.7 * room), layout="constrained", dpi=100)
    axes = figure.subplots()
    shades = counts / np.maximum(true, 1)[:, None]
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    title = f"{right.sum() / max(counts.sum(), 1):.2%} of {counts.sum():,} right" + (f", {moment}" if moment else "")
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row, column in np.ndindex(counts.shape) if size <= MOST_NUMBERS else ():
        colour = "white" if shades[row, column] > 0.5 else "black" if counts[row, column] else "lightgrey"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    ticks = evenly(range(size), MOST_NUMBERS)
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=45, ha="right")
    axes.set_yticks(ticks, [names[tick] for tick in ticks])
    right_axis, top_axis = axes.secondary_yaxis("right"), axes.secondary_xaxis("top")
    right_axis.set_yticks(ticks, [in_words(recall[tick]) for tick in ticks])
    right_axis.set_ylabel("recall")
    top_axis.set_xticks(ticks, [in_words(precision[tick]) for tick in ticks], rotation=45, ha="left")
    top_axis.set_xlabel("precision")
    return figure


def in_words(share: float) -> str:
    """Return a ratio in percent, or a dash for NaN."""
    return "\N{EN DASH}" if np.isnan(share) else f"{share:.1%}"


def in_percent(figure: Figure, counts: np.ndarray) -> None:
    """Replace the numbers in the cells of a figure by percent of their row; twice as fast as a new figure."""
    figure.set_layout_engine("none")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for text, share in zip(figure.axes[0].texts, shares.ravel(), strict=False):  # a large matrix has no texts
        text.set_text(f"{share:.0%}")
