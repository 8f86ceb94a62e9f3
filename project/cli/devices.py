"""What training on several devices needs, or changes."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

KEY = "world_size"  # number of devices in a checkpoint; older ones have a dict "devices"


class Devices(Callback):
    """Report the global batch size, and warn if training resumes with another number of devices."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        devices, batches = trainer.world_size, trainer.accumulate_grad_batches
        images = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if devices * batches > 1 and isinstance(images, int):
            rank_zero_info(
                f"A step takes {devices * batches * images:,} images: {images} x {devices} (devices) x {batches} "
                f"(accumulate_grad_batches). Learning rates: --model.scale_lr {getattr(pl_module, 'scale_lr', 'none')}."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = trainer.world_size

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        before, now = checkpoint.get(KEY), trainer.world_size
        if trainer.state.fn == TrainerFn.FITTING and before not in (None, now):
            rank_zero_warn(
                f"The checkpoint was trained on {before} devices, but training resumes on {now}. Unless "
                f"--data.batch_size is already adapted, multiply it by {before / now:g} to keep the global batch size."
            )
