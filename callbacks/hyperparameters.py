"""Settings and results of a run for TensorBoard's HPARAMS and TEXT tabs."""

import math

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import network_of


class Hyperparameters(DrawingCallback):
    """Log the resolved config, and the main settings of a run with its best validation metrics.

    Tags: ``config`` (text: the run's config.yaml). Scalars at the end of a fit: ``hp/<metric>``, the best value of the
    metric that the checkpoint monitors, such as ``hp/val/acc``; ``hp/val/loss``, the last value; and ``hp/epochs``.
    HPARAMS shows them with the settings.
    """

    required_media = ("texts", "HPARAMS")

    def __init__(self) -> None:
        super().__init__()

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw_later(trainer, describe(trainer, pl_module), self._metrics(trainer))

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw_later(trainer, {}, self._metrics(trainer))

    def draw(self, log: LogSnapshot, settings: dict[str, str | float], metrics: dict[str, float]) -> None:
        if settings:
            config = log.folder / "config.yaml"
            text = config.read_text() if config.is_file() else yaml.safe_dump(settings)
        for writer in log.writers:
            assert writer.file_writer is not None
            if settings:
                # not by log.text: trackers have the settings, and the address of a tracker may hold a password
                writer.add_text("config", f"```yaml\n{text}\n```", log.step)
                for summary in hparams(settings, dict.fromkeys(metrics, 0.0)):
                    writer.file_writer.add_summary(summary)
                continue
            for name, value in metrics.items():
                if math.isfinite(value):
                    writer.add_scalar(name, value, log.step)

    def _metrics(self, trainer: Trainer) -> dict[str, float]:
        """Return the current metrics, NaN if not yet known."""
        metrics = {"hp/val/loss": float(trainer.callback_metrics.get("val/loss", math.nan))}
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor:
            score = checkpoint.best_model_score
            metrics[f"hp/{checkpoint.monitor}"] = math.nan if score is None else float(score)
        return metrics | {"hp/epochs": float(trainer.current_epoch)}


def describe(trainer: Trainer, pl_module: LightningModule) -> dict[str, str | float]:
    """Return the main settings of a run as numbers and strings for HPARAMS."""
    network = network_of(pl_module)
    settings: dict[str, str | float] = {
        "network": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "precision": str(trainer.precision),
        "max_epochs": trainer.max_epochs or 0,
        "devices": trainer.world_size,
    }
    if (loss := getattr(pl_module, "loss", None)) is not None:
        settings["loss"] = type(getattr(loss, "loss", loss)).__name__
    for optimizer in trainer.optimizers:
        settings["optimizer"] = type(optimizer).__name__
        for name in ("lr", "initial_lr", "momentum", "weight_decay", "betas", "nesterov"):
            if (value := optimizer.defaults.get(name)) is not None:
                settings[name] = value if isinstance(value, int | float) else str(value)
    for name in ("batch_size", "image_size"):
        value = getattr(trainer.datamodule, name, None)  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if isinstance(value, int):
            settings[name] = int(value)
    return settings
