import io
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from project.__main__ import main


def error_of(*args: str) -> str:
    """Return the error message for a command line."""
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == 2
    assert err.getvalue().count("\n") == 1, err.getvalue()
    return err.getvalue()


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--lr 0.1", "--model.optimizer.lr"),
        ("--trainer.lr=0.1", "--model.optimizer.lr"),
        ("--model.lr=0.1", "--model.optimizer.lr"),
        ("--optimizer.lr 0.1", "--model.optimizer.lr"),
        ("--optim.lr 0.1", "--model.optimizer.lr"),
        ("--learning-rate 0.1", "--model.optimizer.lr"),
        ("--model.optimizer.learning_rate=0.1", "--model.optimizer.lr"),
        ("--optimizer Adam", "--model.optimizer"),
        ("--epochs 5", "--trainer.max_epochs"),
        ("--trainer.epochs 5", "--trainer.max_epochs"),
        ("--max_epochs=5", "--trainer.max_epochs"),
        ("--max_epoch=5", "--trainer.max_epochs"),
        ("--batch_size 5", "--data.batch_size"),
        ("--trainer.batch_size 5", "--data.batch_size"),
        ("--batchsize 5", "--data.batch_size"),
        ("--seed 5", "--seed_everything"),
        ("--gpus 5", "--trainer.devices"),
        ("--precision bf16", "--trainer.precision"),
        ("--workers 5", "--data.num_workers"),
        ("--data_dir x", "--data.root"),
        ("--resume x", "--run"),
        ("--momentum 0.9", "--model.optimizer.momentum"),
        ("--monitor val/loss", "--checkpoint.monitor"),
        ("--scheduler x", "--model.lr_scheduler"),
        ("--depth 20", "--model.network.depth"),
        ("--model.optimiser.lr=3", "--model.optimizer.lr"),
        ("--callbacks.histogram.every_n_epochs 5", "--callbacks.histograms"),
        ("--callbacks.feature_mapss false", "--callbacks.feature_maps"),
        ("--model.optimizer.momentun=3", "momentum"),
        ("--data.bach_size=3", "batch_size"),
        ("--callbacks.histograms.every_n_epoch=3", "every_n_epochs"),
        ("--model.param_groups=[{patern:3}]", "pattern"),
        ('--trainer={"lr":3}', "--model.optimizer.lr"),
        ("--log_every 20", "--trainer.log_every_n_steps"),
    ],
)
def test_an_unknown_option_is_reported_with_the_option_that_was_meant(option: str, meant: str) -> None:
    err = error_of("fit", "--config=configs/resnet20.yaml", *option.split())
    assert err.startswith("error: Expected a known option on the command line, but got '")
    assert err.endswith(f"Did you mean {meant}?\n")
    assert ".yaml" not in err


@pytest.mark.parametrize("option", ["--num_classes 3", "--model.optimizer.betas=1", "--dropout 3", "--width 3"])
def test_nothing_is_suggested_without_a_similar_option(option: str) -> None:
    err = error_of("fit", "--config=configs/lenet.yaml", *option.split())
    assert err.endswith("`python -m project fit --help` lists the options.\n")


@pytest.mark.parametrize("command", [["test"], ["prepare"], ["preview"]])
def test_other_commands_report_unknown_options(command: list[str]) -> None:
    err = error_of(*command, "--config=configs/lenet.yaml", "--batch_size=3")
    assert "command line, but got 'batch_size'. Did you mean --data.batch_size?" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# lr\nlr: 0.1\n", "got 'lr' in {}:2. Did you mean model.optimizer.lr?"),
        ("trainer:\n  epochs: 3\n", "got 'trainer.epochs' in {}:2. Did you mean trainer.max_epochs?"),
        (
            "model:\n  init_args:\n    optimizer:\n      init_args: {lr: 1}\n    lr: 1\n",
            "got 'model.lr' in {}:5. Did you mean model.optimizer.lr?",
        ),
        ("model: {init_args: {optimizer: {init_args: {\n  momentun: 1}}}}\n", "in {}:2. Did you mean momentum?"),
        ("optimizer:\n  class_path: torch.optim.Adam\n", "in {}:2. Did you mean model.optimizer?"),
        (
            "callbacks:\n  feature_mapss: false",
            "in {}:2. Did you mean callbacks.feature_maps?",
        ),
        ("callbacks:\n  histograms:\n    every_n_epoch: 5", "in {}:3. Did you mean every_n_epochs?"),
        ("trainer:\n  max_epoch: 3\n", "got 'trainer.max_epoch' in {}:2. Did you mean trainer.max_epochs?"),
        ("fit:\n  trainer:\n    max_epochs: 3\n", "in {}:3. Did you mean trainer.max_epochs?"),
        (
            "trainer:\n  callbacks:\n    - class_path: callbacks.EMA\n      init_args:\n        deca: 2\n",
            "got 'trainer.callbacks.deca' in {}:5. Did you mean decay?",
        ),
    ],
)
def test_an_unknown_key_is_reported_with_its_file_and_line(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    err = error_of("fit", "--config=configs/lenet.yaml", f"--config={file}")
    assert err.startswith("error: Expected a known option, but got '")
    assert expected.format(file) in err


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            ["--callbacks.histograms=false", "--callbacks.histograms.every_n_epochs=5"],
            "Set --callbacks.histograms true before",
        ),
        (
            ["--model.lr_scheduler.step_size=1", "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR"],
            "Put --model.lr_sch",
        ),
        (["--callbacks.mine=true"], "`python -m project fit --help` lists the options."),
    ],
)
def test_an_argument_without_its_class_is_reported_with_advice(options: list[str], advice: str) -> None:
    assert advice in error_of("fit", "--config=configs/lenet.yaml", *options)
