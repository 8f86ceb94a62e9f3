"""A run whose numbers are lost stops, keeps the checkpoint of before, and says where it began."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from watching import fit

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


def test_a_run_stops_with_a_finite_checkpoint(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as info:
        main(["fit", *fast, "--trainer.callbacks=[test_finite_loss.Spoil]", f"--runs_dir={tmp_path}"])
    assert info.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "but got the loss nan in epoch 2, step 15. Learning rates: default 0." in told
    assert "fc2.weight" in told
    (run,) = tmp_path.glob("lenet/*")
    checkpoint = torch.load(run / LAST, weights_only=True)
    assert checkpoint["global_step"] == 12
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_a_last_step_that_spoils_the_weights_reaches_no_checkpoint(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"weights that are not finite in epoch 1, step 2.*fc2.weight"):
        fit(make_classifier(), tmp_path, [Spoil("gradient", 2), TerminateOnNaN()], epochs=2)


def test_a_signal_writes_no_spoilt_weights_over_the_last_good_ones(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*fast, "--trainer.callbacks=[test_finite_loss.SpoilAndStop]", f"--runs_dir={tmp_path}"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *options])
    assert "but got weights that are not finite in epoch 2, step 16." in capsys.readouterr().err
    (run,) = tmp_path.glob("lenet/*")
    found = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == 12
    assert all(one.isfinite().all() for one in found["state_dict"].values())


class SpoilAndStop(Callback):
    """Make a weight NaN behind a step, which comes to an end by SIGTERM."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 17:
            next(pl_module.parameters()).data.view(-1)[0] = torch.nan
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_warning_comes_once_and_training_goes_on(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Expected a finite loss") as told:
        fit(make_classifier(), tmp_path, [Spoil("weight", 1), TerminateOnNaN(action="warn")], epochs=3)
    assert sum("Expected a finite loss" in str(one.message) for one in told) == 1


def test_where_it_begins_is_the_first_layer(make_classifier: Make) -> None:
    module = make_classifier()
    images = torch.zeros(2, 3, 32, 32)
    assert where_it_begins(module, (images, None)).endswith("the loss itself is not.")
    module.network.conv2.weight.data.fill_(1e38)
    module.network.conv1.bias.data.fill_(10)
    words = where_it_begins(module, (images, None))
    assert "All weights are finite; the outputs of conv2, pool2, fc1 and 2 more are not" in words
    assert module.training
    module.network.conv1.bias.data[0] = torch.nan
    assert "NaN or infinite are conv1.bias:" in where_it_begins(module, images)
