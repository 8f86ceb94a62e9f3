"""A progress bar that costs a step next to nothing."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SECONDS = 0.1  # between two updates


class Progress(RichProgressBar):
    """Lightning's bar, told of a step ten times a second: by itself it gathers what it shows in each.

    At an epoch's end all processes gather with the first one, which shows it: what several hooks log is reduced in the
    order in which it is gathered, and one process alone would have another's losses in its accuracies.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)  # refreshes a second
        self._told = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._told > SECONDS or trainer.is_last_batch:
            self._told = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ = trainer.progress_bar_metrics
        super().on_train_epoch_end(trainer, pl_module)
