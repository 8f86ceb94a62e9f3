from pathlib import Path

import pytest

from project.__main__ import main

CALLBACK = "lightning.pytorch.callbacks"
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"


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
            "Expected mode of ReduceLROnPlateau min for val/loss, but got max",
        ),
        (
            ["--trainer.limit_val_batches=0", *stopping("val/loss")],
            "Expected a training metric at trainer.callbacks.0, because --trainer.limit_val_batches is 0",
        ),
        (["--trainer.strategy=ddp_fork"], "strategy such as ddp, which starts new processes, but got ddp_fork.\n"),
        (
            ["--trainer.strategy=ddp_notebook_find_unused_parameters_true"],
            "but got ddp_notebook_find_",
        ),
        (["--trainer.strategy=ddp_spawn"], "but got ddp_spawn.\n"),
        (
            ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy", "--trainer.strategy.start_method=fork"],
            "which starts new processes, but got fork.\n",
        ),
        (["--trainer.barebones=true"], "Expected --trainer.barebones false, because a run needs"),
        (["--trainer.limit_train_batches=0"], "Expected --trainer.limit_train_batches other than 0, but got 0.\n"),
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


def test_a_run_may_have_no_validation(fast: list[str], tmp_path: Path) -> None:
    options = ["--callbacks=false", "--trainer.limit_val_batches=0", "--trainer.max_epochs=1"]
    with pytest.warns(UserWarning, match="could not find the monitored key"):
        run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
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
