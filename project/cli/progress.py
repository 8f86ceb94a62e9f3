"""A progress bar with little overhead per step."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SECONDS = 0.1  # between two updates


class Progress(RichProgressBar):
    """Update Lightning's bar at most ten times a second; by default, it collects its metrics in every step.

    At the end of an epoch, all ranks read the metrics, although only rank zero shows them: metrics are all-reduced in
    the order in which they are read, so a rank that skipped it would mix losses with accuracies.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)  # refreshes a second
        self._updated = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._updated > SECONDS or trainer.is_last_batch:
            self._updated = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ = trainer.progress_bar_metrics
        super().on_train_epoch_end(trainer, pl_module)
