"""Check the metrics that callbacks and schedules monitor: their mode, and whether they are logged."""

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


def check_monitors(trainer: Trainer, at_epoch_end: bool) -> None:
    """Check that the metrics that callbacks and schedules monitor are logged.

    Args:
        trainer: Trainer of the run.
        at_epoch_end: Check the metrics of training and, if a validation has run, those whose names do not indicate what
            logs them. Otherwise check the metrics of validation.

    Raises:
        MisconfigurationException: A monitored metric is not logged.
    """
    names = {}
    for owner in (*trainer.callbacks, *trainer.lr_scheduler_configs):  # type: ignore[attr-defined]  # set elsewhere in Lightning
        monitor = getattr(owner, "monitor", None)
        optional = not getattr(owner, "strict", True) or getattr(owner, "save_top_k", 1) == 0
        # ModelCheckpoint defines "epoch" and "step" itself
        if isinstance(monitor, str) and monitor not in ("epoch", "step") and not optional:
            names[monitor] = type(getattr(owner, "scheduler", owner)).__name__
    validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.ready > 0 or not trainer.enable_validation
    for monitor, name in names.items():
        kind = next((kind for kind in (is_of_training, is_of_validation) if kind(monitor)), None)
        is_due = (kind is is_of_training or (kind is None and validated)) if at_epoch_end else kind is is_of_validation
        if is_due and monitor not in trainer.callback_metrics:
            metrics = ", ".join(sorted(filter(kind, trainer.callback_metrics)))
            subject = "Training and validation log"
            if kind is not None:
                subject = "Training logs" if kind is is_of_training else "Validation logs"
            moment = " in the sanity check" if trainer.sanity_checking else ""  # where callbacks cannot log
            raise MisconfigurationException(
                f"Expected a metric that is logged{moment} as monitor of {name}, but got {monitor}. {subject} "
                f"{metrics}."
            )


class MonitorCheck(Callback):
    """Check monitored validation metrics in the sanity check, or else the first validation, before other callbacks.

    ``ImageModule`` checks all other metrics at the end of the first epoch.

    Raises:
        MisconfigurationException: A metric is not logged.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            check_monitors(trainer, at_epoch_end=False)
