from pathlib import Path

import pytest

from project.__main__ import main

CALLBACK = "lightning.pytorch.callbacks"
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"
CLI_PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"


def stopping(monitor: str) -> list[str]:
    return [f"--trainer.callbacks={CALLBACK}.EarlyStopping", f"--trainer.callbacks.monitor={monitor}"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["--checkpoint.monitor=val/size"],
            "Expected --checkpoint.mode min or max, because it does not follow from the name val/size",
        ),
        (
            stopping("val/size"),
            "Expected mode of EarlyStopping min or max, because it does not follow from the name val/size",
        ),
        (
            ["--checkpoint.monitor=val/loss", "--checkpoint.mode=max"],
            "Expected --checkpoint.mode min for val/loss, but got max",
        ),
        (
            [*stopping("val/acc"), "--trainer.callbacks.mode=min"],
            "Expected mode of EarlyStopping max for val/acc, but got min",
        ),
        (
            [f"--model.lr_scheduler={PLATEAU}", "--model.lr_scheduler.mode=max"],
            "Expected --model.lr_scheduler.mode min for val/loss, but got max",
        ),
        (
            ["--trainer.limit_val_batches=0", *stopping("val/loss")],
            "Expected a training metric for EarlyStopping, because --trainer.limit_val_batches is 0",
        ),
        (["--trainer.strategy=ddp_fork"], "but got ddp_fork, which hangs if a process fails. Use ddp.\n"),
        (["--trainer.strategy=ddp_notebook_find_unused_parameters_true"], "Use ddp_find_unused_parameters_true.\n"),
        (["--trainer.strategy=ddp_spawn"], "Use ddp.\n"),
        (
            ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy", "--trainer.strategy.start_method=fork"],
            "but got fork, which hangs if a process fails. Use start_method popen.\n",
        ),
        (["--trainer.barebones=true"], "Expected --trainer.barebones false, because a run needs"),
        (["--trainer.limit_train_batches=0"], "Expected --trainer.limit_train_batches other than 0, but got 0.\n"),
        (["--trainer.max_epochs=0"], "Expected --trainer.max_epochs other than 0, but got 0.\n"),
        (["--trainer.val_check_interval=0.0"], "Expected --trainer.val_check_interval other than 0, but got 0.\n"),
        (["--trainer.default_root_dir=x"], "Use --runs_dir"),
        (["--checkpoint.save_top_k=-1"], "--run uses checkpoints/best.ckpt"),
    ],
)
def test_settings_that_cannot_train_are_rejected_before_a_run_exists(
    fast: list[str], change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, "--callbacks=false", *change, f"--runs_dir={tmp_path / 'runs'}"])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_may_have_no_validation(fast: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["--callbacks=false", "--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    assert "No best.ckpt will be written: --trainer.limit_val_batches is 0" in caplog.text
    assert [file.name for file in run.glob("checkpoints/*")] == ["last.ckpt"]


def test_validation_after_the_end_of_an_epoch_is_rejected(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *fast, "--callbacks=false", "--trainer.val_check_interval=13", f"--runs_dir={tmp_path}"])
    err = capsys.readouterr().err
    assert (
        "error: `val_check_interval` (13) must be less than or equal to the number of the training batches (12)" in err
    )
    assert "Traceback" not in err


def test_a_class_may_follow_its_arguments_if_a_mode_is_derived(fast: list[str], tmp_path: Path) -> None:
    options = [
        "--model.lr_scheduler.monitor=val/acc",
        f"--model.lr_scheduler={CLI_PLATEAU}",
        "--callbacks=false",
    ]
    limits = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]
    cli = main(["fit", *fast, *limits, *options, f"--runs_dir={tmp_path}"])
    assert cli.trainer.lr_scheduler_configs[0].scheduler.mode == "max"


def test_the_mode_of_a_saved_config_is_one_that_was_given(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--callbacks=false", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]
    run = main(["fit", *fast, *options, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    longer = ["fit", "--run", str(run), "--trainer.max_epochs=2"]
    with pytest.raises(SystemExit, match="2"):
        main([*longer, "--checkpoint.monitor=val/loss"])
    assert "Expected --checkpoint.mode min for val/loss, but got max" in capsys.readouterr().err
    callback = main([*longer, "--checkpoint.monitor=val/loss", "--checkpoint.mode=min"]).trainer.checkpoint_callback
    assert callback.best_model_score < 10


@pytest.mark.parametrize(("given", "end"), [("null", True), ("false", False)])
def test_a_training_metric_is_monitored_at_the_end_of_an_epoch_unless_the_user_sets_otherwise(
    fast: list[str], given: str, end: bool, tmp_path: Path
) -> None:
    arguments = f"{{monitor: train/loss, strict: false, check_on_train_epoch_end: {given}}}"
    callback = f"--trainer.callbacks=[{{class_path: {CALLBACK}.EarlyStopping, init_args: {arguments}}}]"
    options = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2", "--callbacks=false"]
    cli = main(["fit", *fast, *options, callback, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"])
    (stopping_callback,) = cli.trainer.early_stopping_callbacks
    assert stopping_callback._check_on_train_epoch_end == end
