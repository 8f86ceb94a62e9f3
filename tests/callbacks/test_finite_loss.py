"""A run whose loss becomes NaN stops, keeps its last finite checkpoint and names the first affected layer."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from watching import fit

from callbacks import finite_loss
from callbacks.finite_loss import NotFiniteError, TerminateOnNaN, where_it_begins
from lightning_modules import ImageClassifier
from project.__main__ import main
from project.runs.config import LAST

Make = Callable[..., ImageClassifier]


class Spoil(Callback):
    """Make a weight or a gradient infinite before a step."""

    def __init__(self, what: str = "weight", step: int = 14) -> None:
        self.what, self.step = what, step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            parameter = pl_module.network.fc2.weight
            (parameter if self.what == "weight" else parameter.grad).data[0, 0] = torch.inf


class SpoilAndStop(Callback):
    """Set a weight to NaN after a step and send SIGTERM."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 17:
            next(pl_module.parameters()).data.view(-1)[0] = torch.nan
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Spoil, "but got the loss nan in epoch 2, step 15. Learning rates: default 0."),
        (SpoilAndStop, "but got weights that are not finite in epoch 2, step 16."),
    ],
)
def test_a_run_stops_with_a_finite_checkpoint(
    callback: type, message: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--callbacks=false", f"--trainer.callbacks=[test_finite_loss.{callback.__name__}]"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, *own, f"--runs_dir={tmp_path}"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line
    assert ("fc2.weight" if callback is Spoil else "conv1.weight") in line
    (run,) = tmp_path.glob("lenet/*")
    checkpoint = torch.load(run / LAST, weights_only=True)
    assert checkpoint["global_step"] == 12
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_nan_weights_of_the_last_step_reach_no_checkpoint(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"weights that are not finite in epoch 1, step 2.*fc2.weight"):
        fit(make_classifier(), tmp_path, [Spoil("gradient", 2), TerminateOnNaN()], epochs=2)


def test_weights_are_checked_once_after_a_step(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(finite_loss, "get_total_norm", lambda tensors: steps.append(1) or torch.tensor(1.0))
    callback = TerminateOnNaN()
    fit(
        make_classifier(), tmp_path, [callback, ModelCheckpoint(tmp_path, save_last=True)], 2, enable_checkpointing=True
    )
    assert len(steps) == 2  # of validation, the end of the epoch and two checkpoints in each epoch
    assert callback._batch is None


def test_the_warning_comes_once_and_training_continues(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Expected a finite loss") as warned:
        fit(make_classifier(), tmp_path, [Spoil("weight", 1), TerminateOnNaN(action="warn")], epochs=3)
    assert sum("Expected a finite loss" in str(warning.message) for warning in warned) == 1


def test_where_it_begins_is_the_first_layer(make_classifier: Make) -> None:
    module = make_classifier()
    images = torch.zeros(2, 3, 32, 32)
    assert where_it_begins(module, (images, None)).endswith("only the loss is not.")
    module.network.conv2.weight.data.fill_(1e38)
    module.network.conv1.bias.data.fill_(10)
    words = where_it_begins(module, (images, None))
    assert "All weights are finite, but the outputs of conv2, pool2, fc1 and 2 more are not" in words
    assert module.training
    module.network.conv1.bias.data[0] = torch.nan
    assert "NaN or infinite values are in conv1.bias," in where_it_begins(module, images)
