"""Training and validation curves in one chart."""

import re

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot


class LearningCurves(DrawingCallback):
    """Give ``train/<name>`` and ``val/<name>`` one chart in TensorBoard's tab Custom Scalars.

    It writes only the layout of the charts, after the first epoch with a validation. The points are the scalars
    themselves, so that a run has one event file and is one line in TensorBoard's list of runs.

    Charts: ``<name>``, as ``loss`` and ``acc``, for each name that both training and validation log.
    """

    required_media = ("charts of two lines",)

    def __init__(self) -> None:
        super().__init__()
        self._written = False

    # train/<name> is known only after on_train_epoch_end: at the start of the next epoch, or at the end

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        names = [name.removeprefix("train/") for name in metrics if name.startswith("train/")]
        both = [name for name in names if f"val/{name}" in metrics]
        if both and not self._written:
            self._written = True
            self.draw(LogSnapshot(trainer), both)

    def draw(self, log: LogSnapshot, names: list[str]) -> None:
        tags = {name: [f"^{stage}/{re.escape(name)}$" for stage in ("train", "val")] for name in names}
        for writer in log.writers:
            writer.add_custom_scalars({"Training and validation": {name: ["Multiline", tags[name]] for name in names}})
