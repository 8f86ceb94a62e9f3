from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules import ImageClassifier, ParamGroup
from lightning_modules.optim import ProgressLR, Triangle
from project.resume.override_settings import OverrideSettings

Make = Callable[..., ImageClassifier]
QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


class Rates(Callback):
    """Record the learning rates of each step."""

    def __init__(self) -> None:
        self.lrs: list[tuple[float, ...]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.lrs.append(tuple(group["lr"] for group in optimizer.param_groups))


@pytest.fixture
def fit(make_classifier: Make, tmp_path: Path) -> Callable[..., list[tuple[float, ...]]]:
    """Return a function that trains, or resumes from the end of the first epoch, and returns the learning rates."""
    images = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % 10)

    def fit(epochs: int, *callbacks: Callback, batch_size: int = 4, save: str | None = None, **options: Any) -> list:
        rates, file = Rates(), str(tmp_path / "first.ckpt") if callbacks else None
        callbacks = (*callbacks, rates)
        if save is not None:
            when = save == "at the end of the epoch"
            callbacks += (ModelCheckpoint(tmp_path, "first", every_n_epochs=1, save_on_train_epoch_end=when),)
        quiet = QUIET | {"enable_checkpointing": save is not None}
        trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks], **quiet)
        loader = DataLoader(images, batch_size)
        trainer.fit(make_classifier(**options), loader, loader, ckpt_path=file, weights_only=False)
        return rates.lrs

    return fit


@pytest.mark.parametrize("save", ["after validation", "at the end of the epoch"])
@pytest.mark.parametrize("schedule", [partial(ProgressLR, shape=Triangle()), partial(ExponentialLR, gamma=0.5)])
def test_schedules_continue_as_if_the_settings_had_been_used_from_the_start(
    fit: Callable[..., list], schedule: partial, save: str
) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle(start=0.1, peak_at=0.3))]
    before = {"lr_scheduler": schedule, "param_groups": rules}
    after = before | {"optimizer": partial(torch.optim.SGD, lr=0.7)}
    whole = fit(3, batch_size=8, **after)
    fit(1, save=save, **before)
    resumed = fit(3, OverrideSettings(False, False), batch_size=8, **after)
    assert resumed == [pytest.approx(lrs) for lrs in whole[2:]]
