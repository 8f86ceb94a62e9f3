"""What the terminal shows: the network, a progress bar that costs hardly any time, and a table of metrics."""

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.model_summary import get_human_readable_count, summarize
from rich import get_console
from rich import print as rich_print
from rich.table import Table
from rich.text import Text
from torch import Tensor

from project.runs.metrics import format_metric

SECONDS = 0.25  # between two updates
LONG = 0.5  # hours; from here on, training on a CPU is called long


@rank_zero_only
def print_metrics(of_loaders: Sequence[Mapping[str, float]], verbose: bool = True) -> None:
    """Print a table of metrics: accuracies in percent, and others with four digits; Lightning's has up to 19."""
    metrics = {name: value for of_loader in of_loaders for name, value in of_loader.items()}
    if not verbose or not metrics:
        return
    table = Table("Metric", "Value")
    table.columns[1].justify = "right"
    for name in sorted(metrics):
        table.add_row(Text(name), format_metric(metrics[name], "acc" if "acc" in name.split("/") else name))
    rich_print(table)


class NetworkSummary(ModelSummary):
    """Print name, parameters and operations of the network instead of a table, and the images of an optimizer step."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summary = summarize(pl_module)  # by all processes, among which the network may be divided
        if not trainer.is_global_zero:
            return
        total, trained = summary.total_parameters, summary.trainable_parameters
        frozen = "" if trained == total else f", {total - trained:,} of them frozen"
        flops = f"; {get_human_readable_count(summary.total_flops)} FLOPs for an image" if summary.total_flops else ""
        print(f"{type(getattr(pl_module, 'network', pl_module)).__name__}: {total:,} parameters{frozen}{flops}")
        devices, batches = trainer.world_size, trainer.accumulate_grad_batches
        images = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if devices * batches > 1 and isinstance(images, int):
            print(
                f"A step takes {devices * batches * images:,} images: {images} x {devices} (devices) x {batches} "
                f"(accumulate_grad_batches). Learning rates: --model.scale_lr {getattr(pl_module, 'scale_lr', 'none')}."
            )


class EpochLines(ProgressBar):
    """Print a line after each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        words = [f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        for name, value in trainer.progress_bar_metrics.items():
            if name.startswith("val/"):  # those of training are still the previous epoch's
                words.append(f"{name} {format_metric(value, name.removeprefix('val/'))}")
        print("  ".join(words), flush=True)


class Progress(RichProgressBar):
    """Lightning's bar with the loss and with epochs counted from 1, updated four times a second rather than every step.

    At an epoch's end all processes gather with the first one, which shows it: what several hooks log is reduced in the
    order in which it is gathered, and one process alone would have another's losses in its accuracies.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4, theme=RichProgressBarTheme(metrics_format=".4f"))  # refreshes a second
        self._updated = 0.0
        self._loss: Tensor | None = None
        self._start: float | None = None  # of the second batch; the first one takes longer

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        timestamp = time.monotonic()
        if isinstance(trainer.accelerator, CPUAccelerator):
            self._report_duration(trainer, batch_idx, timestamp)
        if timestamp - self._updated > SECONDS or trainer.is_last_batch:
            self._updated = timestamp
            self._loss = outputs.get("loss") if isinstance(outputs, dict) else None
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ = trainer.progress_bar_metrics
        super().on_train_epoch_end(trainer, pl_module)

    def _report_duration(self, trainer: Trainer, batch: int, timestamp: float) -> None:
        """Print once how long training takes, after 20 batches or 10 seconds, if that is more than half an hour.

        An epoch of one batch has no batch to measure after the first one, which takes longer.
        """
        if trainer.current_epoch > 0:
            return
        if batch == 0:
            self._start = timestamp
        elif self._start is not None and (batch == 20 or timestamp - self._start > 10):
            epoch = trainer.num_training_batches * (timestamp - self._start) / batch / 60
            hours, self._start = epoch * (trainer.max_epochs or 0) / 60, None
            if hours > LONG:
                rank_zero_info(
                    f"An epoch takes about {epoch:.1f} minutes on this CPU, all epochs {hours:.1f} hours. Try --config "
                    "configs/lenet.yaml (minutes) or configs/airbench_cpu.yaml."
                )

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what the bar shows, with the loss of the last step."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics if self._loss is None else {"loss": self._loss.item(), **metrics}

    def _get_train_description(self, current_epoch: int) -> str:
        planned = self.trainer.max_epochs
        epochs = f"/{planned}" if planned is not None and planned > 0 else ""
        return f"{f'Epoch {current_epoch + 1}{epochs}':{len(self.validation_description)}}"


def progress() -> ProgressBar:
    """Return a bar, or lines in a notebook without ipywidgets, where rich would warn at each update of a bar."""
    return EpochLines() if get_console().is_jupyter and find_spec("ipywidgets") is None else Progress()
