"""The metrics that callbacks and schedules monitor: their mode, and whether they are logged."""

import re
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

HIGHER_IS_BETTER = {"acc", "accuracy", "precision", "recall", "sensitivity", "specificity", "f", "fbeta", "auc"}
HIGHER_IS_BETTER |= {"auroc", "auprc", "ap", "map", "iou", "dice", "jaccard", "kappa", "mcc", "psnr", "ssim", "hit"}
LOWER_IS_BETTER = {"loss", "error", "err", "entropy", "nll", "mse", "rmse", "mae", "ece", "brier", "perplexity"}
UNITS = {"step", "epoch", "mean", "avg", "macro", "micro", "weighted", "top", "at", "k", "score", "rate", "ema"}


def better_mode(metric: str) -> Literal["min", "max"] | None:
    """Return whether a lower or a higher metric is better, by its name: "val/acc", "val_loss", "valF1Score".

    The last known word of the first part that has one decides: "acc" in "val/acc/cat", "loss" in "val/acc_loss".

    Returns:
        The ``mode`` of Lightning's and torch's classes; None for an unknown name.
    """
    for part in metric.split("/"):
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)]
        last = next((word for word in reversed(words) if word not in UNITS), None)
        if last in HIGHER_IS_BETTER | LOWER_IS_BETTER:
            return "max" if last in HIGHER_IS_BETTER else "min"
    return None


def is_of_training(metric: str) -> bool:
    """Return whether a metric is available only at the end of a training epoch."""
    return metric.startswith("train")


def is_of_validation(metric: str) -> bool:
    """Return whether a metric is logged by validation, by its name: "val/acc", "val_loss", "valid/F1Score"."""
    return re.match("val(id(ation)?)?(?![a-z])", metric) is not None


class MonitorCheck(Callback):
    """Check in the sanity check, or else in the first validation, that monitored validation metrics are logged.

    Lightning checks them, and all others, only after an epoch.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        for owner in (*trainer.callbacks, *trainer.lr_scheduler_configs):  # type: ignore[attr-defined]  # set elsewhere in Lightning
            monitor = getattr(owner, "monitor", None)
            optional = not getattr(owner, "strict", True) or getattr(owner, "save_top_k", 1) == 0
            if monitor and is_of_validation(monitor) and monitor not in trainer.callback_metrics and not optional:
                name = type(getattr(owner, "scheduler", owner)).__name__
                metrics = ", ".join(sorted(filter(is_of_validation, trainer.callback_metrics)))
                moment = " in the sanity check" if trainer.sanity_checking else ""  # where callbacks cannot log
                raise MisconfigurationException(
                    f"Expected a metric that is logged{moment} as monitor of {name}, but got {monitor}. Validation "
                    f"logs {metrics}."
                )
