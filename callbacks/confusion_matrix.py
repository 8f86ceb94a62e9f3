"""The confusion matrix, with recall and precision of each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from torchmetrics.classification import MulticlassConfusionMatrix

from callbacks.loggers import log_figure

MOST_NUMBERS = 20  # classes; with more, the numbers in the cells cannot be read and are left out


class ConfusionMatrix(Callback):
    """Draw which classes are taken for which, at the end of validation and test.

    Needs a module whose ``validation_step`` and ``test_step`` return a dict with ``preds``, int64 ``(N,)``, and that
    has ``class_names``.

    Tags: ``confusion_matrix/val`` and ``confusion_matrix/test`` (number of images; rows true, columns predicted;
    recall in percent at the end of a row, precision at the end of a column). The latest is also written to
    ``confusion_matrix_val.png`` and ``confusion_matrix_test.png`` in the run's folder.

    Args:
        every_n_epochs: Draw each n-th epoch of a fit.
    """

    def __init__(self, every_n_epochs: PositiveInt = 1) -> None:
        self.every_n_epochs = every_n_epochs
        self._metric: MulticlassConfusionMatrix | None = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING
        if trainer.sanity_checking or (fitting and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._metric is None:
            return
        if not isinstance(outputs, dict) or "preds" not in outputs:
            raise MisconfigurationException(
                "Expected validation_step and test_step to return a dict with `preds` (N,) for ConfusionMatrix, but "
                f"got {type(outputs).__name__}. Return it, or take the callback out of the config."
            )
        self._metric.update(outputs["preds"], batch[1])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "test")

    def _start(self, pl_module: LightningModule) -> None:
        class_names: list[str] = pl_module.class_names  # type: ignore[assignment]  # the contract above
        self._metric = MulticlassConfusionMatrix(len(class_names), validate_args=False).to(pl_module.device)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._metric is None:
            return
        counts = self._metric.compute().cpu().numpy()  # on every rank: it gathers from all of them
        self._metric = None
        if not trainer.is_global_zero:
            return
        figure = draw_confusion_matrix(counts, pl_module.class_names)  # type: ignore[arg-type]  # likewise
        log_figure(trainer, f"confusion_matrix/{stage}", figure)
        folder = Path(trainer.default_root_dir)  # the run's folder, whatever the loggers
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"confusion_matrix_{stage}.png")


def draw_confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Return a figure of a confusion matrix.

    Args:
        counts: Integers ``(classes, classes)``; rows are true, columns predicted.
        class_names: Name of each class.
    """
    size = len(class_names)
    names = np.array([name.replace("$", r"\$") for name in class_names])  # which would begin a formula
    true, predicted, right = counts.sum(1), counts.sum(0), counts.diagonal()
    recall, precision = right / np.maximum(true, 1), right / np.maximum(predicted, 1)
    side = min(max(3.5 + 0.55 * size, 5), 16)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=100)
    axes = figure.subplots()
    shades = counts / np.maximum(true, 1)[:, None]
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted", ylabel="true", title=f"{right.sum() / max(counts.sum(), 1):.2%} of {counts.sum():,} right"
    )
    if size <= MOST_NUMBERS:
        ticks = np.arange(size)
        for row, column in np.ndindex(size, size):
            colour = "white" if shades[row, column] > 0.5 else "black" if counts[row, column] else "lightgrey"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    else:
        ticks = np.linspace(0, size - 1, MOST_NUMBERS).round().astype(int)
    axes.set_xticks(ticks, names[ticks], rotation=45, ha="right")
    axes.set_yticks(ticks, names[ticks])
    right_axis = axes.secondary_yaxis("right")
    right_axis.set_yticks(ticks, [f"{recall[tick]:.1%}" for tick in ticks])
    right_axis.set_ylabel("recall")
    top_axis = axes.secondary_xaxis("top")
    top_axis.set_xticks(ticks, [f"{precision[tick]:.1%}" for tick in ticks], rotation=45, ha="left")
    top_axis.set_xlabel("precision")
    return figure
