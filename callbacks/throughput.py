"""Duration of training and validation, and training throughput."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Log the duration of training and validation, and the training throughput.

    Tags, once per epoch: ``time/train_seconds`` (without validation), ``time/val_seconds`` and
    ``time/images_per_second`` (training images, on all devices). Durations on several devices are averaged. If a run
    resumes within an epoch, nothing is logged for the rest of that epoch.
    """

    def __init__(self) -> None:
        self._start: float | None = None  # start of the epoch; None if training resumed within it
        self._validation_start = self._validating = 0.0
        self._images = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._validating, self._images = time.perf_counter(), 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[0])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_start = _now(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating += _now(pl_module) - self._validation_start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._start is not None:
            seconds = _now(pl_module) - self._start - self._validating
            rate = self._images * trainer.world_size / max(seconds, 1e-9)
            times = {"train_seconds": seconds, "val_seconds": self._validating, "images_per_second": rate}
            pl_module.log_dict({f"time/{name}": value for name, value in times.items()}, sync_dist=True)
        self._start = None


def _now(pl_module: LightningModule) -> float:
    """Return the time in seconds after synchronising with the device; called three times per epoch."""
    if pl_module.device.type == "cuda":
        torch.cuda.synchronize(pl_module.device)
    return time.perf_counter()
