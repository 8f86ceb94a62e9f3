"""Train a module with callbacks for a few steps, and read what they logged."""

import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ImageEvent
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

import callbacks as ours
from callbacks import FeatureMaps
from callbacks.base.log import LogSnapshot

# the attributes of a trainer that callbacks use to run the network
NO_TRAINER: Any = SimpleNamespace(precision_plugin=SimpleNamespace(val_step_context=nullcontext))


def fit(
    module: LightningModule,
    folder: Path,
    callbacks: Sequence[Callback],
    epochs: int = 2,
    data: tuple[torch.Tensor, torch.Tensor] | None = None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> Trainer:
    """Fit images and targets, by default 24 random ones of ten classes, in batches of 8, and validate on the same."""
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(*(data or (images, torch.arange(24) % 10))), 8)
    settings = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "logger": TensorBoardLogger(folder, name="", version=""),
    }
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), **(settings | options))
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path, weights_only=False)
    return trainer


def snapshot(folder: Path, epoch: int = 1, *loggers: Any) -> LogSnapshot:
    """Return what callbacks draw with in an epoch of a trainer that has some loggers."""
    trainer: Any = SimpleNamespace(
        loggers=loggers, global_step=9, optimizers=[], current_epoch=epoch - 1, state=SimpleNamespace(fn=None)
    )
    trainer.default_root_dir, trainer.fast_dev_run = str(folder), False
    return LogSnapshot(trainer)


def events(folder: Path) -> EventAccumulator:
    """Return all logged events."""
    return EventAccumulator(str(folder), {"images": 0, "histograms": 0, "tensors": 0}).Reload()


def decode(event: ImageEvent) -> torch.Tensor:
    """Return a logged image, float ``(3, H, W)`` from 0 to 255."""
    return pil_to_tensor(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).float()


def all_callbacks(**options: int) -> list[Callback]:
    """Return one of each callback that draws or logs, every epoch; without Doctor, which computes in each step."""
    every = {"every_n_epochs": 1} | options
    once = ("Hyperparameters", "LearningCurves", "NetworkGraph", "Throughput")
    others = [name for name in ours.__all__ if name not in ("Doctor", "EMA", "FeatureMaps", "TerminateOnNaN")]
    watchers = (getattr(ours, name)(**({} if name in once else every)) for name in others)
    return [FeatureMaps(["conv?", "pool1"], **every), *watchers]
