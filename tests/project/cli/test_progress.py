import re
from pathlib import Path
from unittest.mock import MagicMock, patch

import pytest
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import RichProgressBar

from project.__main__ import main
from project.cli.progress import Progress, print_metrics


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
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--callbacks=false"]
    short += ["--trainer.accumulate_grad_batches=4"]
    run = main(["fit", *fast, *short, rule, f"--runs_dir={tmp_path}"]).run_dir
    out = capsys.readouterr().out
    assert "Resuming" not in out
    assert "62,006 parameters, 456 of them frozen; " in out
    assert "A step takes 128 images: 32 x 1 (devices) x 4 (accumulate_grad_batches). Learning rates: --model.sc" in out
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
        options = ["--trainer.enable_progress_bar=true", "--trainer.limit_val_batches=0", "--callbacks=false"]
        cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert isinstance(cli.trainer.progress_bar_callback, Progress)
    assert updated == [11, 11]  # of 12 steps in each of 2 epochs


def test_metrics_have_four_digits_in_a_table(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = main(["test", f"--run={finished_run}", "--report=false"]).trainer.callback_metrics
    out = capsys.readouterr().out
    for name, value in metrics.items():
        assert re.search(rf"{name} +│ +{f'{value:.2%}' if 'acc' in name else f'{value:.4g}'} │", out)
    assert "DataLoader 0" not in out
    print_metrics([{"test/acc/[b]cat": 0.912299990653}])
    assert re.search(r"test/acc/\[b\]cat │ 91\.23% │", capsys.readouterr().out)
    print_metrics([{"val/acc": 0.5}], verbose=False)
    assert "val/acc" not in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "is_reported"), [(12, True), (0.01, False)])
def test_long_training_on_a_cpu_is_reported_once_with_faster_recipes(
    seconds: float, is_reported: bool, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = MagicMock(accelerator=CPUAccelerator(), num_training_batches=100, max_epochs=10)
    bar = Progress()
    with caplog.at_level("INFO"):
        for trainer.current_epoch in range(2):
            for batch in range(40):
                bar._report_duration(trainer, batch, batch * seconds)
    lines = [record.message for record in caplog.records if "on this CPU" in record.message]
    assert len(lines) == is_reported
    assert all(
        "about 20.0 minutes on this CPU, all epochs 3.3 hours. Try --config configs/lenet" in line for line in lines
    )


def test_the_duration_of_slow_training_with_few_batches_in_an_epoch_is_not_reported() -> None:
    trainer, bar = MagicMock(accelerator=CPUAccelerator(), num_training_batches=3, max_epochs=10), Progress()
    for trainer.current_epoch in range(4):
        for batch in range(3):
            bar._report_duration(trainer, batch, 4.0 * (3 * trainer.current_epoch + batch))
