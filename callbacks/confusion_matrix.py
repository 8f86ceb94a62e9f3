"""Confusion matrix, in numbers and in percent."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from callbacks.base.log import LogSnapshot
from callbacks.base.predictions import PredictionCallback, Predictions
from callbacks.tools.fonts import font, short_names
from callbacks.tools.layers import evenly
from callbacks.tools.pictures import LINE, rows_of_text

MOST_NUMBERS = 20  # maximum number of classes with numbers in the cells; with more, they are not readable
CELL, SIDE = 48, 960  # sides in pixels: of a cell with a number, and of a matrix without numbers


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
        right = counts.trace() / max(counts.sum(), 1)
        caption = f"{right:.2%} of {counts.sum():,} {stage} images right, {log.moment}"
        axes = "rows: true class, with its recall; columns: predicted class, with its precision"
        log.image(f"confusion_matrix/{stage}", draw_confusion_matrix(counts, names), f"{caption}; {axes}")
        percent = draw_confusion_matrix(counts, names, percent=True)
        log.image(f"confusion_matrix_normalised/{stage}", percent, f"{caption}; percent of the images of a row; {axes}")
        rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
        log.table(f"confusion_matrix_{stage}.csv", [r"true \ predicted", *names], rows)


def draw_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], percent: bool = False) -> Tensor:
    """Return a picture of a confusion matrix, uint8 ``(3, H, W)``; Matplotlib would take 20 times as long.

    Rows of ``counts``, ``(classes, classes)``, are true classes. ``percent`` writes shares of a row into its cells.
    """
    size, names = len(class_names), short_names(class_names)
    has_numbers = size <= MOST_NUMBERS
    cell = max(CELL, SIDE // 4 // size) if has_numbers else max(SIDE // size, 1)
    ticks, middles = evenly(range(size), MOST_NUMBERS), [cell * (place + 0.5) for place in range(size)]
    beside = rows_of_text([names[tick] for tick in ticks], [middles[tick] for tick in ticks], cell * size)
    left, top, side = beside.width, LINE, cell * size
    canvas = Image.new("RGB", (left + side + CELL, top + side + left), "white")
    shares = counts / np.maximum(counts.sum(1), 1)[:, None]
    shades = Image.fromarray(colormaps["Blues"](shares, bytes=True)[..., :3])
    canvas.paste(shades.resize((side, side), Image.Resampling.NEAREST), (left, top))
    canvas.paste(beside, (0, top))
    canvas.paste(beside.transpose(Image.Transpose.ROTATE_90), (left, top + side))
    draw = ImageDraw.Draw(canvas)
    recall, precision = recall_and_precision(counts)
    for tick in ticks:
        draw.text((left + side + 4, top + middles[tick]), in_words(recall[tick]), "black", font(), anchor="lm")
        draw.text((left + middles[tick], top - 3), in_words(precision[tick]), "black", font(), anchor="ms")
    for row, column in np.ndindex(counts.shape) if has_numbers else ():
        share, count = shares[row, column], counts[row, column]
        colour = "white" if share > 0.5 else "black" if count else "lightgrey"
        text = f"{share:.0%}" if percent else f"{count}"
        draw.text((left + middles[column], top + middles[row]), text, colour, font(), anchor="mm")
    return pil_to_tensor(canvas)


def recall_and_precision(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision of each class; NaN for a class without images, or that is never predicted."""
    true, predicted, right = counts.sum(1), counts.sum(0), counts.diagonal()
    with np.errstate(invalid="ignore"):
        return right / true, np.where(true > 0, right / predicted, np.nan)


def in_words(share: float) -> str:
    """Return a ratio in percent, or a dash for NaN."""
    return "\N{EN DASH}" if np.isnan(share) else f"{share:.1%}"
