"""Training and validation curves in one chart."""

import re

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from callbacks.base.log import LogSnapshot


class LearningCurves(Callback):
    """Give ``train/<name>`` and ``val/<name>`` one chart in TensorBoard's tab Custom Scalars.

    It writes only the layout of the charts, after the first epoch with a validation. The points are the scalars
    themselves, so that a run has one event file and is one line in TensorBoard's list of runs.

    Charts: ``<name>``, as ``loss`` and ``acc``, for each name that both training and validation log.
    """

    _written = False

    @rank_zero_only
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        names = [name.removeprefix("train/") for name in metrics if name.startswith("train/")]
        charts = {
            name: ["Multiline", [f"^{stage}/{re.escape(name)}$" for stage in ("train", "val")]]
            for name in names
            if f"val/{name}" in metrics
        }
        if charts and not self._written:
            self._written = True
            for writer in LogSnapshot(trainer).writers:
                writer.add_custom_scalars({"Training and validation": charts})

    on_train_end = on_train_epoch_start  # train/<name> is known only after on_train_epoch_end
