"""Settings and results of a run for TensorBoard's HPARAMS and TEXT tabs."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import network_of


class Hyperparameters(Callback):
    """Log the resolved config, and at the end of a fit the main settings with the best validation metrics.

    Tags: ``config`` (text: the run's config.yaml). Scalars at the end of a fit: ``hp/<metric>``, the best value of the
    metric that the checkpoint monitors, such as ``hp/val/acc``; ``hp/val/loss``, the last value; and ``hp/epochs``.
    HPARAMS shows them with the settings.
    """

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        config = Path(trainer.default_root_dir, "config.yaml")
        log = LogSnapshot(trainer)
        for writer in log.writers if config.is_file() else ():  # not trackers, whose addresses may hold passwords
            writer.add_text("config", f"```yaml\n{config.read_text()}\n```", log.step)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {"hp/epochs": float(trainer.current_epoch)}
        if (loss := trainer.callback_metrics.get("val/loss")) is not None:
            metrics["hp/val/loss"] = float(loss)
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
            metrics[f"hp/{checkpoint.monitor}"] = float(checkpoint.best_model_score)
        log = LogSnapshot(trainer)
        for writer in log.writers:
            for summary in hparams(describe(trainer, pl_module), metrics):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value, log.step)


def describe(trainer: Trainer, pl_module: LightningModule) -> dict[str, str | float]:
    """Return the main settings of a run as numbers and strings for HPARAMS."""
    network, loss = network_of(pl_module), getattr(pl_module, "loss", None)
    data = trainer.datamodule  # type: ignore[attr-defined]  # set elsewhere in Lightning
    settings: dict[str, Any] = {
        "network": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "loss": loss and type(getattr(loss, "loss", loss)).__name__,
        "precision": str(trainer.precision),
        "max_epochs": trainer.max_epochs,
        "devices": trainer.world_size,
        "batch_size": getattr(data, "batch_size", None),
        "image_size": getattr(data, "image_size", None),
    }
    for optimizer in trainer.optimizers:
        settings["optimizer"] = type(optimizer).__name__
        settings |= {name: optimizer.defaults.get(name) for name in ("lr", "momentum", "weight_decay")}
    return {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
