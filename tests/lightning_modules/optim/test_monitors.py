import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules import ImageClassifier
from lightning_modules.optim.monitors import better_mode, is_of_validation
from project.__main__ import main
from project.runs.config import BEST

CALLBACK = "lightning.pytorch.callbacks"
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
SHORT = ["--callbacks=false", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (
            "min",
            [
                "val/loss",
                "train/loss_step",
                "val_loss",
                "valLoss",
                "val/error_rate",
                "val/cross_entropy",
                "val/acc_loss",
            ],
        ),
        (
            "max",
            ["val/acc", "val/acc/loss of power", "val_f1", "val/F1Score", "val/top5_acc", "val/AUROC", "recall_macro"],
        ),
        (None, ["val/size", "lr-SGD", "val/acc_gap", "epoch", "step", ""]),
    ],
)
def test_the_name_of_a_metric_indicates_its_mode(mode: str | None, names: list[str]) -> None:
    assert {better_mode(name) for name in names} == {mode}


def values(run: Path, name: str) -> dict[int, float]:
    """Return a metric of each epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss"])
def test_the_best_checkpoint_is_that_of_the_lowest_loss(fast: list[str], monitor: str, tmp_path: Path) -> None:
    options = ["--callbacks=false", "--trainer.max_epochs=3", f"--checkpoint.monitor={monitor}"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    losses = values(run, monitor)
    assert len(losses) == 3
    assert torch.load(run / BEST, weights_only=True)["epoch"] == min(losses, key=lambda epoch: losses[epoch])
    assert "  mode: min" in (run / "config.yaml").read_text()


def test_monitors_of_an_accuracy_use_the_highest_value(fast: list[str], tmp_path: Path) -> None:
    callbacks = ", ".join(
        f"{{class_path: {CALLBACK}.{name}, init_args: {{monitor: val/acc, {more}}}}}"
        for name, more in (("EarlyStopping", "patience: 3"), ("ModelCheckpoint", "filename: mine"))
    )
    options = [*SHORT, "--callbacks=false", f"--trainer.callbacks=[{callbacks}]", f"--model.lr_scheduler={PLATEAU}"]
    options += ["--model.lr_scheduler.monitor=val/acc", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]
    trainer = main(["fit", *fast, *options]).trainer
    monitoring = [callback for callback in trainer.callbacks if getattr(callback, "monitor", None) is not None]
    assert [each.mode for each in [*monitoring, trainer.lr_scheduler_configs[0].scheduler]] == ["max"] * 4


def test_a_training_metric_is_monitored_with_validations_within_an_epoch(fast: list[str], tmp_path: Path) -> None:
    callbacks = ", ".join(
        f"{{class_path: {CALLBACK}.{name}, init_args: {{monitor: train/loss, {more}}}}}"
        for name, more in (("EarlyStopping", "patience: 1, min_delta: 9"), ("ModelCheckpoint", "filename: mine"))
    )
    options = [*SHORT, "--callbacks=false", f"--trainer.callbacks=[{callbacks}]", "--trainer.val_check_interval=0.5"]
    run = main(["fit", *fast, *options, "--trainer.max_epochs=4", f"--runs_dir={tmp_path}"]).run_dir
    losses = values(run, "train/loss")
    assert len(losses) == 2  # the first, and one that does not improve by 9
    mine = torch.load(run / "checkpoints/mine.ckpt", weights_only=True)
    assert mine["epoch"] == min(losses, key=lambda epoch: losses[epoch])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--checkpoint.monitor=val_acc"],
            "monitor of Checkpoint, but got val_acc. Validation logs val/acc, val/loss.",
        ),
        (
            [
                "--callbacks=false",
                f"--trainer.callbacks={CALLBACK}.EarlyStopping",
                "--trainer.callbacks.monitor=val_loss",
            ],
            "monitor of EarlyStopping, but got val_loss. Validation logs val/acc, val/loss.",
        ),
        (
            [f"--model.lr_scheduler={PLATEAU}", "--model.lr_scheduler.monitor=validation/loss"],
            "monitor of ReduceLROnPlateau, but got validation/loss. Validation logs val/acc, val/loss.",
        ),
    ],
)
@pytest.mark.parametrize("sanity_steps", [2, 0])
def test_a_missing_metric_is_reported_in_the_first_validation(
    fast: list[str],
    change: list[str],
    message: str,
    sanity_steps: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*SHORT, f"--trainer.num_sanity_val_steps={sanity_steps}", *change, f"--runs_dir={tmp_path}"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, *options])
    moment = " in the sanity check" if sanity_steps else ""
    assert f"error: Expected a metric that is logged{moment} as {message}\n" in capsys.readouterr().err
    assert not list(tmp_path.glob("lenet/*/checkpoints/*"))


def test_a_metric_that_training_does_not_log_is_reported_after_an_epoch(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = [
        "--callbacks=false",
        f"--trainer.callbacks={CALLBACK}.EarlyStopping",
        "--trainer.callbacks.monitor=train_loss",
    ]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, *SHORT, *stopping, f"--runs_dir={tmp_path}"])
    message = (
        "Expected a metric that is logged as monitor of EarlyStopping, but got train_loss. "
        "Training logs train/acc, train/loss."
    )
    assert f"error: {message}\n" in capsys.readouterr().err


def test_the_name_of_a_metric_indicates_whether_validation_logs_it() -> None:
    assert all(map(is_of_validation, ["val/acc", "val_loss", "valLoss", "validation/loss", "valid_acc"]))
    assert not any(map(is_of_validation, ["train/loss", "value_loss", "loss", "my/val/acc", ""]))


class Confident(ImageClassifier):
    """A classifier that logs training metrics under names that do not begin with "train"."""

    def training_step(self, batch: Any, *args: Any) -> Any:
        output = super().training_step(batch, *args)
        loss = output["loss"] if isinstance(output, dict) else output
        self.log("confidence_loss", loss.detach(), on_step=False, on_epoch=True)
        self.log("loss", loss.detach())
        return output


@pytest.mark.parametrize("monitor", ["confidence_loss", "loss"])
def test_a_metric_of_training_may_have_any_name(fast: list[str], monitor: str, tmp_path: Path) -> None:
    callbacks = ", ".join(
        f"{{class_path: {CALLBACK}.{name}, init_args: {{monitor: {monitor}, {more}}}}}"
        for name, more in (("EarlyStopping", "patience: 1, min_delta: 9"), ("ModelCheckpoint", "filename: mine"))
    )
    options = [*SHORT, "--model=test_monitors.Confident", "--callbacks=false", f"--trainer.callbacks=[{callbacks}]"]
    options += [f"--checkpoint.monitor={monitor}", "--trainer.max_epochs=4", f"--runs_dir={tmp_path}"]
    run = main(["fit", *fast, *options]).run_dir
    losses = values(run, "train/loss")
    assert len(losses) == 2
    for name in ("best", "mine"):
        checkpoint = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == min(losses, key=lambda epoch: losses[epoch])


def test_a_metric_that_nothing_logs_is_reported_after_an_epoch(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = [
        "--callbacks=false",
        f"--trainer.callbacks={CALLBACK}.EarlyStopping",
        "--trainer.callbacks.monitor=confidence_los",
    ]
    stopping += ["--trainer.callbacks.mode=min", "--model=test_monitors.Confident"]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, *SHORT, *stopping, f"--runs_dir={tmp_path}"])
    message = (
        "Expected a metric that is logged as monitor of EarlyStopping, but got confidence_los. Training and validation "
        "log confidence_loss, loss, train/acc, train/loss, val/acc, val/loss."
    )
    assert f"error: {message}\n" in capsys.readouterr().err
