"""What the terminal shows: network, duration on a CPU, a progress bar that costs hardly any time, table of metrics."""

import math
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelSummary, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.utilities.model_summary import get_human_readable_count, summarize
from rich.table import Table
from rich.text import Text
from torch import Tensor

from project.runs.metrics import format_metric

SECONDS = 0.1  # between two updates
LONG_TRAINING = 1800.0  # seconds


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """Return a table of metrics by name: accuracies in percent, and others with four digits."""
    table = Table("Metric", "Value")
    table.columns[1].justify = "right"
    for name in sorted(metrics):
        table.add_row(Text(name), format_metric(metrics[name], "acc" if "acc" in name.split("/") else name))
    return table


class NetworkSummary(ModelSummary):
    """Print name, number of parameters and operations of the network instead of a table of all modules."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summary = summarize(pl_module)  # by all processes, among which the network may be divided
        if not trainer.is_global_zero:
            return
        total, trained = summary.total_parameters, summary.trainable_parameters
        frozen = "" if trained == total else f", {total - trained:,} of them frozen"
        flops = f"; {get_human_readable_count(summary.total_flops)} FLOPs for an image" if summary.total_flops else ""
        print(f"{type(getattr(pl_module, 'network', pl_module)).__name__}: {total:,} parameters{frozen}{flops}")


class DurationOnCPU(Callback):
    """Measure the first steps, and print how long training takes if that is more than ``LONG_TRAINING``.

    Such recipes are made for a GPU; the message names recipes for a CPU. The command line adds this callback only if
    training runs on a CPU.
    """

    def __init__(self) -> None:
        self._steps = -1  # without the first one, which takes longer than the others
        self._start = 0.0
        self._is_done = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_done:
            return
        self._steps += 1
        if not self._steps:
            self._start = time.monotonic()
            return
        seconds = time.monotonic() - self._start
        if self._steps < 20 and seconds < 10 and not trainer.is_last_batch:
            return
        self._is_done = True
        epoch = seconds / self._steps * trainer.num_training_batches
        left = (trainer.estimated_stepping_batches - trainer.global_step) * trainer.accumulate_grad_batches
        message = duration_message(epoch, (self._steps + 1 + left) / trainer.num_training_batches)
        if message and trainer.is_global_zero:
            print(message, flush=True)


def duration_message(epoch: float, epochs: float) -> str:
    """Return how long training takes and what is faster; "" if it takes less than ``LONG_TRAINING``.

    Args:
        epoch: Seconds of an epoch.
        epochs: Number of epochs, or infinity.
    """
    total = epoch * epochs if math.isfinite(epochs) else epoch
    if not LONG_TRAINING < total < math.inf:
        return ""
    all_epochs = f", {epochs:.0f} epochs {_duration(total)}" if math.isfinite(epochs) else ""
    return (
        f"An epoch takes about {_duration(epoch)} on this CPU{all_epochs}. Try --config configs/lenet.yaml (minutes) "
        "or configs/airbench_cpu.yaml."
    )


def _duration(seconds: float) -> str:
    number, unit = (seconds / 60, "minutes") if seconds < 90 * 60 else (seconds / 3600, "hours")
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"


class Progress(RichProgressBar):
    """Lightning's bar with the loss and with epochs counted from 1, updated ten times a second rather than every step.

    At an epoch's end all processes gather with the first one, which shows it: what several hooks log is reduced in the
    order in which it is gathered, and one process alone would have another's losses in its accuracies.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, theme=RichProgressBarTheme(metrics_format=".4f"))  # refreshes a second
        self._updated = 0.0
        self._loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        timestamp = time.monotonic()
        if timestamp - self._updated > SECONDS or trainer.is_last_batch:
            self._updated = timestamp
            self._loss = outputs.get("loss") if isinstance(outputs, dict) else None
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ = trainer.progress_bar_metrics
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what the bar shows, with the loss of the last step."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics if self._loss is None else {"loss": self._loss.item(), **metrics}

    def _get_train_description(self, current_epoch: int) -> str:
        planned = self.trainer.max_epochs
        epochs = f"/{planned}" if planned is not None and planned > 0 else ""
        return f"{f'Epoch {current_epoch + 1}{epochs}':{len(self.validation_description)}}"
