import math
import re
from pathlib import Path
from unittest.mock import patch

import pytest
import rich
from lightning.pytorch.callbacks import RichProgressBar

from project.__main__ import main
from project.cli.progress import Progress, duration_message, metrics_table


def test_what_a_training_prints_is_short(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stopping = "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/loss, min_delta: 9}}"
    patience = ["--trainer.callbacks.patience=1", "--trainer.max_epochs=3", "--trainer.enable_progress_bar=true"]
    main(["fit", *fast, "--callbacks=false", f"--trainer.callbacks=[{stopping}]", *patience, f"--runs_dir={tmp_path}"])
    out = capsys.readouterr().out
    start = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out).partition("Epoch 1/3")
    assert start[1]
    assert len(start[0].splitlines()) <= 12
    assert "LeNet: 62,006 parameters; " in start[0]
    assert "Parameter groups" not in out
    assert re.search(r"loss:.{,20}\d\.\d{4}", start[2])
    assert "Stopped early at epoch 2." in out


def test_frozen_parameters_and_a_resume_are_printed(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "--model.param_groups=[{pattern: conv1.*, freeze: true}]"
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--callbacks=false"]
    run = main(["fit", *fast, *short, rule, f"--runs_dir={tmp_path}"]).run_dir
    out = capsys.readouterr().out
    assert "Resuming" not in out
    assert "62,006 parameters, 456 of them frozen; " in out
    assert "Parameter groups" in out
    main(["fit", f"--run={run}", "--trainer.max_epochs=2"])
    assert f"Resuming at epoch 2, step 1 ({run}/checkpoints/last.ckpt)." in capsys.readouterr().out


def test_bar_is_updated_at_the_last_step_and_few_others(fast: list[str], tmp_path: Path) -> None:
    updated: list[int] = []

    def note(
        self: RichProgressBar, trainer: object, module: object, outputs: object, batch: object, index: int
    ) -> None:
        updated.append(index)

    with patch.object(RichProgressBar, "on_train_batch_end", note), patch("project.cli.progress.SECONDS", 1e9):
        options = [
            "--trainer.enable_progress_bar=true",
            "--trainer.limit_val_batches=0",
            "--checkpoint.monitor=train/acc",
        ]
        cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert isinstance(cli.trainer.progress_bar_callback, Progress)
    assert updated == [11, 11]  # of 12 steps in each of 2 epochs


def test_metrics_have_four_digits_in_the_table_of_a_test(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = main(["test", f"--run={finished_run}"]).trainer.callback_metrics
    out = capsys.readouterr().out
    for name, value in metrics.items():
        assert re.search(rf"{name} +│ +{f'{value:.2%}' if 'acc' in name else f'{value:.4g}'} │", out)
    assert "DataLoader 0" not in out
    rich.print(metrics_table({"test/acc/[b]cat": 0.912299990653}))
    assert re.search(r"test/acc/\[b\]cat │ 91\.23% │", capsys.readouterr().out)
    main(["validate", f"--run={finished_run}", "--verbose=false"])
    assert "val/acc" not in capsys.readouterr().out


def test_long_training_on_a_cpu_prints_its_duration_and_faster_recipes_once(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trainer.callbacks=null", "--trainer.accelerator=cpu", f"--runs_dir={tmp_path}"]
    with patch("project.cli.progress.LONG_TRAINING", 0.0):
        main(["fit", *fast, *options])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "on this CPU" in line]
    assert re.search(r"takes about [\d.]+ minutes on this CPU, 2 epochs [\d.]+ minutes\. Try --config", line)
    main(["fit", *fast, *options])
    assert "on this CPU" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("epoch", "epochs", "start"),
    [
        (
            1260,
            30,
            "An epoch takes about 21 minutes on this CPU, 30 epochs 10.5 hours. Try --config configs/lenet.yaml",
        ),
        (3600, 1.5, "An epoch takes about 60 minutes on this CPU, 2 epochs 1.5 hours. "),
        (7200, math.inf, "An epoch takes about 2 hours on this CPU. Try --config configs/lenet.yaml (minutes) or"),
        (7, 30, ""),  # LeNet
        (math.inf, math.nan, ""),  # an endless dataset
    ],
)
def test_duration_is_printed_in_minutes_or_hours(epoch: float, epochs: float, start: str) -> None:
    message = duration_message(epoch, epochs)
    assert message.startswith(start)
    assert bool(message) == bool(start)
