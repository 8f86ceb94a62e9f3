"""A resumed run is equal to an uninterrupted one, except for settings of the command line."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from command_line import stop_of
from filelock import FileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules import ImageClassifier
from project.__main__ import main
from project.errors import RunError
from project.resume.csv_logger import open_table, truncate
from project.resume.resume import expand_run
from project.runs import record
from project.runs.config import LAST

CONSTANT = ["--model.lr_scheduler=null", "--callbacks=false"]
PLATEAU = "--model.lr_scheduler={{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {{{}}}}}"
EARLY = "{{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {{monitor: val/loss, {}}}}}"
TRACE = ["--callbacks=false", "--trainer.callbacks=[test_resume.TraceLr]"]
slow = pytest.mark.slow


class StopAt(Callback):
    """Send a signal to the process of a rank after a step."""

    def __init__(self, step: int, number: int, rank: int = 0) -> None:
        self.step, self.number, self.rank = step, number, rank

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class FailAt(Callback):
    """Fail after a step, or before training."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.step < 0:
            raise ValueError("not today")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise ValueError("not today")


class TraceLr(Callback):
    """Note the learning rate and momentum of each step."""

    seen: ClassVar[dict[int, tuple[float, float]]] = {}

    def on_train_start(self, *args: Any) -> None:
        self.seen.clear()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen[trainer.global_step] = (group["lr"], group.get("momentum", group.get("betas", [0])[0]))


class StopGroup(Callback):
    """Send SIGTERM to all processes, including DataLoader workers, in a validation."""

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not trainer.sanity_checking and args[2] == 1:
            os.killpg(0, signal.SIGTERM)


def fail(step: int) -> str:
    return f"--trainer.callbacks=[{{class_path: test_resume.FailAt, init_args: {{step: {step}}}}}]"


def stop(step: int, number: int) -> str:
    return f"--trainer.callbacks+={{class_path: test_resume.StopAt, init_args: {{step: {step}, number: {number}}}}}"


def trace(*args: str) -> tuple[Path, dict[int, tuple[float, float]]]:
    """Train; return the run directory, and learning rate and momentum of each step."""
    run = main(["fit", *args]).run_dir
    return run, dict(TraceLr.seen)


def equal(first: Path, second: Path) -> bool:
    """Return whether the last weights and all metrics of two runs are equal."""
    a, b = (torch.load(run / LAST, weights_only=True)["state_dict"] for run in (first, second))
    return rows(first) == rows(second) and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def one_epoch(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of one epoch with a constant learning rate. Tests must not change it."""
    runs_dir = tmp_path_factory.mktemp("one")
    return main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={runs_dir}"]).run_dir


@pytest.fixture(scope="module")
def two_epochs(fast: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run like ``one_epoch`` of two epochs. Tests must not change it."""
    return main(["fit", *fast, *CONSTANT, f"--runs_dir={tmp_path_factory.mktemp('two')}"]).run_dir


@pytest.fixture
def run(one_epoch: Path, tmp_path: Path) -> Path:
    """Return a copy of ``one_epoch``, the only run in ``tmp_path``."""
    return Path(shutil.copytree(one_epoch, tmp_path / "lenet" / one_epoch.name))


def test_a_run_resumes_in_its_directory(run: Path, two_epochs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resumed = main(["fit", "--run", "last", "--trainer.max_epochs=2", f"--runs_dir={run.parents[1]}"]).run_dir
    assert resumed == run
    assert equal(run, two_epochs)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "Changed" in line] == ["Changed      trainer.max_epochs: 1 -> 2"]
    saved = record.read(run)
    assert saved["state"] == record.state_of(run) == "finished"
    assert saved["resumed"][0]["command"][:3] == ["fit", "--run", "last"]
    assert len(list((run / "previous_configs").glob("*/config.yaml"))) == 1
    code, err = stop_of(["fit", "--run", str(run)], capsys)
    assert code == 2
    assert f"{run} is finished. To resume it, increase" in err


STEP_LR = "--model.lr_scheduler={class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}"
STOPPED = [
    (7, signal.SIGTERM, []),
    pytest.param(12, signal.SIGINT, [], marks=slow),
    pytest.param(20, signal.SIGINT, ["--trainer.check_val_every_n_epoch=2"], marks=slow),
    pytest.param(12, signal.SIGTERM, ["--trainer.limit_val_batches=0", STEP_LR], marks=slow),
    (12, signal.SIGTERM, [f"--trainer.callbacks=[{EARLY.format('patience: 0, min_delta: 9')}]"]),
    pytest.param(5, signal.SIGTERM, ["--trainer.val_check_interval=1"], marks=slow),
    pytest.param(3, signal.SIGINT, ["--trainer.limit_train_batches=1", "--trainer.max_epochs=6"], marks=slow),
    (2, signal.SIGTERM, ["--trainer.accumulate_grad_batches=3", "--trainer.val_check_interval=4"]),
]


@pytest.mark.parametrize(("step", "number", "more"), STOPPED)
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    fast: list[str], step: int, number: int, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*fast, "--callbacks=false", "--model.optimizer.momentum=0.8", *more]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    code, err = stop_of(["fit", *options, stop(step, number), f"--runs_dir={tmp_path}"], capsys)
    assert code == 128 + number
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "interrupted"
    assert f"python -m project fit --run {run}" in err
    assert torch.load(run / LAST, weights_only=True)["global_step"] == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main(["fit", "--run", str(run), "--trainer.callbacks=null", *more])
    assert equal(run, whole)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="validation at the end", marks=slow),
        pytest.param(["--trainer.val_check_interval=0.4"], id="validations within", marks=slow),
        pytest.param(["--trainer.check_val_every_n_epoch=2"], id="every second epoch", marks=slow),
        pytest.param([PLATEAU.format("monitor: val/loss, patience: 0")], id="plateau", marks=slow),
        pytest.param(
            [PLATEAU.format("monitor: val/loss, patience: 0"), "--trainer.val_check_interval=0.4"], id="plateau within"
        ),
    ],
)
def test_failing_twice_after_one_checkpoint_changes_nothing(fast: list[str], more: list[str], tmp_path: Path) -> None:
    options = [*fast, "--callbacks=false", "--trainer.max_epochs=3", *more]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    for start in (options, ["--run", "last"]):
        with pytest.raises(SystemExit, match="1"):
            main(["fit", *start, fail(26), f"--runs_dir={tmp_path}"])
    main(["fit", "--run", "last", "--trainer.callbacks=null", f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    assert equal(run, whole)


def test_a_run_that_is_killed_before_its_last_checkpoint_resumes_from_the_best(
    fast: list[str], one_epoch: Path, tmp_path: Path
) -> None:
    arguments = f"{{note: {tmp_path / 'note'}, hook: on_train_epoch_end, rank: 0}}"
    failing = f"--trainer.callbacks=[{{class_path: failing.Fail, init_args: {arguments}}}]"
    with pytest.raises(SystemExit):
        main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", failing, f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    (run / LAST).unlink()  # both are written after the validation, best.ckpt first
    main(["fit", "--run", str(run), "--trainer.callbacks=null"])
    assert equal(run, one_epoch)


def test_a_run_without_a_checkpoint_starts_from_scratch(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows(run)
    shutil.rmtree(run / "checkpoints")
    (run / record.FILE).write_text(json.dumps(record.read(run) | {"state": "running"}))
    main(["fit", "--run", str(run)])
    assert f"{run} has no checkpoint yet. Training starts from scratch." in capsys.readouterr().out
    assert rows(run) == before
    steps = [event.step for event in EventAccumulator(str(run)).Reload().Scalars("train/loss_step")]
    assert steps == [3, 7, 11]


def test_another_optimizer_starts_without_momentum_of_the_previous_one(run: Path) -> None:
    more = ["--trainer.max_epochs=2", "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=0.001"]
    (optimizer,) = main(["fit", "--run", str(run), *more]).trainer.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {int(state["step"]) for state in optimizer.state.values()} == {12}
    assert optimizer.param_groups[0]["lr"] == 0.001


def test_auto_takes_the_latest_unfinished_run_and_the_files_as_they_are_now(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model:\n  init_args:\n    optimizer:\n      init_args:\n        lr: 0.3\n")
    options = [*fast, f"--config={mine}", *CONSTANT, f"--runs_dir={tmp_path / 'runs'}", fail(1)]
    command = ["fit", *options, "--run=auto"]
    stop_of(list(command), capsys)
    (first,) = (tmp_path / "runs").glob("*/*")
    second = first.with_name("2099-01-01_00-00-00")  # a later run of the same command line
    shutil.copytree(first, second)
    for content, latest in (({"state": "finished"}, first), ({"state": "interrupted"}, second), (None, first)):
        text = "" if content is None else json.dumps(record.read(first) | content)
        (second / record.FILE).write_text(text)
        assert expand_run(command)[-2:] == ["--run", str(latest)]
    shutil.rmtree(second)
    mine.write_text(mine.read_text().replace("0.3", "0.001"))
    code, _ = stop_of(list(command), capsys)
    assert code == 1
    (run,) = (tmp_path / "runs").glob("*/*")
    assert "lr: 0.001" in (run / "config.yaml").read_text()


def test_an_override_without_a_checkpoint_remains_in_effect(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_of(["fit", "--run", str(run), "--trainer.max_epochs=2", "--model.optimizer.lr=0.01", fail(13)], capsys)
    assert (record.state_of(run), record.read(run)["error"]) == ("failed", "ValueError: not today")
    _, after = trace("--run", str(run), TRACE[1])
    assert set(after) == set(range(12, 24))
    assert {lr for lr, _ in after.values()} == {0.01}


LONGER = "--trainer.max_epochs=2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([LONGER, "--trainer.accelerator=gpu"], "No supported gpu backend found!"),
        ([LONGER, "--model.param_groups=[{pattern: fc3.*, lr: 0.5}]"], "Expected param groups as in"),
        ([LONGER, "--seed_everything=5"], "Expected --seed_everything 0 as before"),
        (["--model.optimizer.lr=0.5"], "To resume it, increase --trainer.max_epochs"),
        ([LONGER, "--model.class_weights=balanced"], "error: Error(s) in loading state_dict for ImageClassifier: "),
        ([LONGER, fail(-1)], "not today"),
    ],
)
def test_a_start_that_fails_leaves_the_run_unchanged(
    run: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("config.yaml", record.FILE, "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    before = [(run / name).read_bytes() for name in files]
    _, err = stop_of(["fit", "--run", str(run), *change], capsys)
    assert message in err
    assert [(run / name).read_bytes() for name in files] == before
    assert not (run / "previous_configs").exists()
    assert record.state_of(run) == "finished"


def test_a_new_run_that_fails_before_training_leaves_no_directory(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_of(["fit", *fast, "--callbacks=false", fail(-1), f"--runs_dir={tmp_path}/runs"], capsys)
    assert not list(tmp_path.glob("runs/*/*"))


def test_the_last_checkpoint_is_that_of_the_last_step(fast: list[str], two_epochs: Path, tmp_path: Path) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_steps=20", f"--runs_dir={tmp_path}"]).run_dir
    assert torch.load(run / LAST, weights_only=True)["global_step"] == 20
    main(["fit", "--run", str(run), "--trainer.max_steps=24"])
    assert equal(run, two_epochs)


def test_a_checkpoint_of_another_run_does_not_affect_the_best_of_the_new_one(
    fast: list[str], one_epoch: Path, tmp_path: Path
) -> None:
    worse = ["--model.optimizer.lr=5", "--trainer.gradient_clip_val=1"]
    new = main(["fit", *fast, *CONSTANT, *worse, f"--ckpt_path={one_epoch / LAST}", f"--runs_dir={tmp_path}"]).run_dir
    assert new.parents[1] == tmp_path
    assert (new / "checkpoints/best.ckpt").is_file()


def test_a_plateau_continues_if_only_the_length_of_training_changes(fast: list[str], tmp_path: Path) -> None:
    plateau = PLATEAU.format("monitor: val/loss, patience: 0, threshold: 9")
    options = [*fast, plateau, *TRACE, "--trainer.limit_train_batches=4", f"--runs_dir={tmp_path}"]
    _, wanted = trace(*options, "--trainer.max_epochs=4")
    assert len({lr for lr, _ in wanted.values()}) > 2
    run, _ = trace(*options)
    _, after = trace("--run", str(run), "--trainer.max_epochs=4")
    assert after == {step: pair for step, pair in wanted.items() if step >= 8}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], marks=slow),
        pytest.param(["--trainer.limit_val_batches=0"], marks=slow),
        ["--trainer.val_check_interval=0.5"],
    ],
)
def test_a_plateau_reads_the_training_loss_of_the_epoch_that_a_run_resumes_in(
    fast: list[str], more: list[str], tmp_path: Path
) -> None:
    plateau = PLATEAU.format("monitor: train/loss, patience: 0, threshold: 0.0001")
    options = [*fast, plateau, *TRACE, "--trainer.limit_train_batches=6", *more]
    whole, wanted = trace(*options, "--trainer.max_epochs=5", f"--runs_dir={tmp_path / 'whole'}")
    run, _ = trace(*options, "--trainer.max_epochs=3", f"--runs_dir={tmp_path}")
    _, after = trace("--run", str(run), "--trainer.max_epochs=5")
    assert after == {step: pair for step, pair in wanted.items() if step >= 18}
    assert equal(run, whole)
    states = [torch.load(folder / LAST, weights_only=True)["lr_schedulers"] for folder in (run, whole)]
    assert states[0] == states[1]


def test_a_new_batch_size_starts_after_the_end_of_an_epoch(fast: list[str], tmp_path: Path) -> None:
    options = [*fast, *TRACE, "--trainer.limit_train_batches=1.0", f"--runs_dir={tmp_path}"]
    _, wanted = trace(*options, "--data.batch_size=64")
    run, _ = trace(*options, "--trainer.max_epochs=1")
    _, after = trace("--run", str(run), "--trainer.max_epochs=2", "--data.batch_size=64")
    assert list(after) == list(range(39, 39 + 19))
    assert list(after.values()) == [pytest.approx(wanted[step]) for step in range(19, 38)]


def test_patience_of_the_command_line_overrides_the_checkpoint(fast: list[str], tmp_path: Path) -> None:
    def early(patience: int) -> str:
        return f"--trainer.callbacks=[{EARLY.format(f'min_delta: 9, patience: {patience}')}]"

    short = ["--trainer.limit_train_batches=2", f"--runs_dir={tmp_path}"]
    run = main(["fit", *fast, *CONSTANT, *short, early(1)]).run_dir
    assert main(["fit", "--run", str(run), "--trainer.max_epochs=5", early(3)]).trainer.current_epoch == 4


def test_accumulation_that_a_callback_sets_is_resumed(fast: list[str], tmp_path: Path) -> None:
    growing = "lightning.pytorch.callbacks.GradientAccumulationScheduler, init_args: {scheduling: {0: 1, 1: 3}}"
    options = [*fast, *CONSTANT, f"--trainer.callbacks=[{{class_path: {growing}}}]"]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    with pytest.raises(SystemExit, match="143"):
        main(["fit", *options, stop(14, signal.SIGTERM), f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    assert main(["fit", "--run", str(run), options[-1]]).trainer.global_step == 16
    assert equal(run, whole)


@slow
def test_a_signal_to_all_processes_lets_a_validation_finish(fast: list[str], tmp_path: Path) -> None:
    workers = ["--data.num_workers=2", "--data.cache=none", "--callbacks=false"]
    options = [*fast, *workers, "--trainer.callbacks=[test_resume.StopGroup]", f"--runs_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "project", "fit", *options],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
    )
    assert done.returncode == 143, done.stderr[-2000:]
    (run,) = tmp_path.glob("lenet/*")
    assert torch.load(run / LAST, weights_only=True)["global_step"] == 12


def test_an_interrupted_test_is_repeated_when_the_run_is_resumed(fast: list[str], tmp_path: Path) -> None:
    command = ["fit", *fast, *CONSTANT, "--test_after_fit=true", "--run=auto", f"--runs_dir={tmp_path}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ImageClassifier, "on_test_start", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit, match="143"):
            main(list(command))
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "interrupted"
    assert not list(run.glob("test/*/results.json"))
    before = torch.load(run / LAST, weights_only=True)["state_dict"]
    assert main(list(command)).run_dir == run
    assert record.state_of(run) == "finished"
    assert len(list(run.glob("test/*/results.json"))) == 1
    after = torch.load(run / LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert rows(run)[-1]["step"] == "23"


def test_rows_after_the_checkpoint_are_removed_and_later_ones_appended(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text('"a, ""b""",step\n1,0\n2,1\n3,2\n')  # a class name may contain a comma
    logger = CSVLogger(tmp_path, name="", version="")
    truncate(open_table(logger), 2)
    assert table.read_text() == '"a, ""b""",step\n1,0\n2,1\n'
    logger.log_metrics({'a, "b"': 4, "c": 5}, 2)
    logger.save()
    assert rows(tmp_path)[2] == {'a, "b"': "4", "c": "5", "step": "2"}


def test_only_the_run_option_and_its_value_are_replaced(run: Path) -> None:
    for option in (["--run", str(run)], [f"--run={run}"]):
        assert expand_run(["fit", *option, "-h"]) == [
            *("fit", "--config", f"{run}/config.yaml", "-h", "--ckpt_path", str(run / LAST), "--run", str(run))
        ]


def test_a_run_that_is_running_is_not_started_twice(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    auto = ["fit", "--run", "auto", f"--runs_dir={run.parents[1]}"]
    (run / record.FILE).write_text(json.dumps(record.read(run) | {"state": "running", "pid": 77, "command": auto}))
    assert record.state_of(run) == "killed"
    before = (run / "config.yaml").read_bytes()
    with FileLock(run / record.LOCK):  # as another process holds it
        assert record.state_of(run) == "running"
        assert expand_run(auto) == ["fit", f"--runs_dir={run.parents[1]}"]  # a new run
        code, err = stop_of(["fit", "--run", str(run), LONGER], capsys)
        assert code == 2
        assert "Expected a run that is not running, but process 77 on " in err
        with pytest.raises(RunError, match="another process trains"):
            record.begin(run, ["fit"])
    assert (run / "config.yaml").read_bytes() == before
    assert record.state_of(run) == "killed"


def test_a_config_alone_repeats_a_run_to_the_bit(fast: list[str], tmp_path: Path) -> None:
    dropout = ["--model.network=lightning_modules.networks.MLP", "--callbacks=false"]
    options = [*dropout, "--trainer.callbacks=[callbacks.EMA]", "--seed_everything=3", f"--runs_dir={tmp_path}"]
    run = main(["fit", *fast, *options]).run_dir
    again = main(["fit", "--config", str(run / "config.yaml"), f"--runs_dir={tmp_path / 'again'}"]).run_dir
    assert equal(run, again)
    assert again.parent.name == "lenet"


def test_changed_images_are_reported(run: Path, sample_root: Path) -> None:
    saved = record.read(run)
    assert saved["data"]["root"] == str(sample_root)
    (run / record.FILE).write_text(json.dumps(saved | {"data": saved["data"] | {"digest": "another"}}))
    with pytest.warns(UserWarning, match="The images or their split have changed since"):
        main(["fit", "--run", str(run), LONGER])


def test_results_of_a_test_and_the_number_of_tests_are_recorded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        output = main(["test", "--run", str(run), "--trainer.limit_test_batches=2"]).output_dir
    results = json.loads((output / "results.json").read_text())
    assert results["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    assert (results["epoch"], results["limit_batches"]) == (1, 2)
    assert 0 <= results["metrics"]["test/acc"] <= 1
    out = capsys.readouterr().out
    assert "of epoch 1, on part of the images (limit_test_batches 2); test 2 of this run: do not select" in out
