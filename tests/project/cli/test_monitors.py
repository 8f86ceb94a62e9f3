import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules import ImageClassifier
from project.__main__ import main
from project.cli.monitors import better_mode, is_of_validation
from project.runs.config import BEST

CALLBACK = "lightning.pytorch.callbacks"
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
SHORT = ["--callbacks=false", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]


def callbacks(monitor: str, patience: str) -> str:
    """Return the option of an EarlyStopping and a ModelCheckpoint that monitor a metric."""
    entries = ", ".join(
        f"{{class_path: {CALLBACK}.{name}, init_args: {{monitor: {monitor}, {more}}}}}"
        for name, more in (("EarlyStopping", patience), ("ModelCheckpoint", "filename: mine"))
    )
    return f"--trainer.callbacks=[{entries}]"


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("min", "val/loss train/loss_step val_loss valLoss val/error_rate val/cross_entropy val/acc_loss"),
        ("max", "val/acc val/acc/loss-of-power val_f1 val/F1Score val/top5_acc val/AUROC recall_macro"),
        (None, "val/size lr-SGD val/acc_gap epoch step"),
    ],
)
def test_the_name_of_a_metric_indicates_its_mode(mode: str | None, names: str) -> None:
    assert {better_mode(name) for name in names.split()} == {mode}


def test_the_name_of_a_metric_indicates_whether_validation_logs_it() -> None:
    assert all(map(is_of_validation, ["val/acc", "val_loss", "valLoss", "validation/loss", "valid_acc"]))
    assert not any(map(is_of_validation, ["train/loss", "value_loss", "loss", "my/val/acc", ""]))


def values(run: Path, name: str) -> dict[int, float]:
    """Return a metric of each epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        return {int(row["epoch"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


def best_epoch(run: Path, name: str) -> int:
    return int(torch.load(run / name, weights_only=True)["epoch"])


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss"])
def test_the_best_checkpoint_is_that_of_the_lowest_loss(fast: list[str], monitor: str, tmp_path: Path) -> None:
    options = [*SHORT, "--trainer.max_epochs=3", f"--checkpoint.monitor={monitor}"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    losses = values(run, monitor)
    assert len(losses) == 3
    assert best_epoch(run, str(BEST)) == min(losses, key=lambda epoch: losses[epoch])
    assert "  mode: min" in (run / "config.yaml").read_text()


def test_monitors_of_an_accuracy_use_the_highest_value(fast: list[str], tmp_path: Path) -> None:
    options = [*SHORT, callbacks("val/acc", "patience: 3"), f"--model.lr_scheduler={PLATEAU}"]
    options += ["--model.lr_scheduler.monitor=val/acc", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]
    trainer = main(["fit", *fast, *options]).trainer
    monitoring = [callback for callback in trainer.callbacks if getattr(callback, "monitor", None) is not None]
    assert [each.mode for each in [*monitoring, trainer.lr_scheduler_configs[0].scheduler]] == ["max"] * 4


class Confident(ImageClassifier):
    """A classifier that logs training metrics under names that do not begin with "train"."""

    def training_step(self, batch: Any, *args: Any) -> Any:
        loss = super().training_step(batch, *args)
        self.log("confidence_loss", loss.detach(), on_step=False, on_epoch=True)
        return loss


@pytest.mark.parametrize("monitor", ["confidence_loss", "train/loss"])
def test_a_metric_of_training_may_have_any_name(fast: list[str], monitor: str, tmp_path: Path) -> None:
    options = [*SHORT, "--model=test_monitors.Confident", callbacks(monitor, "patience: 1, min_delta: 9")]
    options += [f"--checkpoint.monitor={monitor}", "--trainer.max_epochs=4"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    losses = values(run, "train/loss")
    assert len(losses) == 2  # the first, and one that does not improve by 9
    lowest = min(losses, key=lambda epoch: losses[epoch])
    assert best_epoch(run, "checkpoints/mine.ckpt") == best_epoch(run, str(BEST)) == lowest


EARLY = [f"--trainer.callbacks={CALLBACK}.EarlyStopping", "--trainer.callbacks.mode=min"]


@pytest.mark.parametrize(
    ("change", "sanity_steps", "message"),
    [
        (["--checkpoint.monitor=val_acc"], 2, "{} in the sanity check as monitor of Checkpoint, but got val_acc."),
        (
            [*EARLY, "--trainer.callbacks.monitor=val_loss"],
            0,
            "{} as monitor of EarlyStopping, but got val_loss. Validation logs val/acc, val/loss.",
        ),
        (
            [f"--model.lr_scheduler={PLATEAU}", "--model.lr_scheduler.monitor=validation/loss"],
            2,
            "{} in the sanity check as monitor of ReduceLROnPlateau, but got validation/loss.",
        ),
        ([*EARLY, "--trainer.callbacks.monitor=train_loss"], 2, "metric `train_loss` which is not available"),
    ],
)
def test_a_missing_metric_is_reported_when_it_could_first_be_logged(
    fast: list[str],
    change: list[str],
    sanity_steps: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*SHORT, f"--trainer.num_sanity_val_steps={sanity_steps}", *change, f"--runs_dir={tmp_path}"]
    with pytest.raises(SystemExit):
        main(["fit", *fast, *options])
    assert message.format("error: Expected a metric that is logged") in capsys.readouterr().err
