"""Metrics that callbacks and schedules monitor: which way each is better, and whether it is logged."""

import re
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

MORE = {"acc", "accuracy", "precision", "recall", "sensitivity", "specificity", "f", "fbeta", "auc", "auroc", "auprc"}
MORE |= {"ap", "map", "iou", "dice", "jaccard", "kappa", "mcc", "psnr", "ssim", "hit"}
LESS = {"loss", "error", "err", "entropy", "nll", "mse", "rmse", "mae", "ece", "brier", "perplexity"}
UNITS = {"step", "epoch", "mean", "avg", "macro", "micro", "weighted", "top", "at", "k", "score", "rate", "ema"}


def better_mode(metric: str) -> Literal["min", "max"] | None:
    """Return whether less or more of a metric is better, as its name tells: "val/acc", "val_loss", "valF1Score".

    The last word of the first part that has a known one decides: "acc" of "val/acc/cat", "loss" of "val/acc_loss".

    Returns:
        The ``mode`` of Lightning's and torch's classes; None of a name that is not known.
    """
    for part in metric.split("/"):
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)]
        last = next((word for word in reversed(words) if word not in UNITS), None)
        if last in MORE | LESS:
            return "max" if last in MORE else "min"
    return None


def is_of_training(metric: str) -> bool:
    """Return whether a metric is known only at the end of an epoch of training."""
    return metric.startswith("train")


def check_monitors(trainer: Trainer, of_training: bool) -> None:
    """Check that what callbacks and schedules monitor is logged: by training, or by validation and all else.

    Raises:
        MisconfigurationException: It is not.
    """
    watched = {}
    for watcher in (*trainer.callbacks, *trainer.lr_scheduler_configs):  # type: ignore[attr-defined]  # set elsewhere in Lightning
        monitor = getattr(watcher, "monitor", None)
        optional = not getattr(watcher, "strict", True) or getattr(watcher, "save_top_k", 1) == 0
        # a ModelCheckpoint knows "epoch" and "step" by itself
        if isinstance(monitor, str) and monitor not in ("epoch", "step") and not optional:
            watched[monitor] = type(getattr(watcher, "scheduler", watcher)).__name__
    for monitor, name in watched.items():
        if is_of_training(monitor) == of_training and monitor not in trainer.callback_metrics:
            logged = sorted(one for one in trainer.callback_metrics if is_of_training(one) == of_training)
            moment = " in the sanity check" if trainer.sanity_checking else ""  # which callbacks may log nothing in
            raise MisconfigurationException(
                f"Expected a metric that is logged{moment} as monitor of {name}, but got {monitor}. "
                f"{'Training' if of_training else 'Validation'} logs {', '.join(logged)}."
            )


class MonitorCheck(Callback):
    """Check what is monitored of validation in the sanity check, or else the first validation; the first of callbacks.

    What training logs is checked by ``ImageModule`` at the end of the first epoch.

    Raises:
        MisconfigurationException: A metric is not logged.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            check_monitors(trainer, of_training=False)
