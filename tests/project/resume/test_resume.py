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
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules import ImageClassifier
from project.__main__ import main
from project.resume.csv_logger import open_table, truncate
from project.resume.resume import expand_run
from project.runs import record
from project.runs.config import LAST

CONSTANT = ["--model.lr_scheduler=null", "--callbacks=false"]
PLATEAU = ["--model.lr_scheduler.monitor=val/loss", "--model.lr_scheduler.patience=0"]
HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(99)
"""


class StopAt(Callback):
    """Send a signal to the process of a rank after a step."""

    def __init__(self, step: int, number: int, rank: int = 0) -> None:
        self.step, self.number, self.rank = step, number, rank

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class FailAt(Callback):
    """Fail after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("out of memory, for example")


class TraceLr(Callback):
    """Note the learning rate and momentum of each step."""

    seen: ClassVar[dict[int, tuple[float, float]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen[trainer.global_step] = (group["lr"], group.get("momentum", group.get("betas", [0])[0]))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / LAST, weights_only=True)["state_dict"]


def equal(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_resumes_in_its_directory(fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = main(["fit", *fast, *CONSTANT, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    first = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    capsys.readouterr()
    second = main(["fit", "--run", "last", "--trainer.max_epochs=2", f"--runs_dir={tmp_path}"]).run_dir
    assert second.resolve() == first.resolve()
    assert equal(second, whole)
    assert rows(second) == rows(whole)
    out = capsys.readouterr().out
    assert out.count("Changed ") == 1
    assert "Changed      trainer.max_epochs: 1 -> 2" in out
    saved = record.read(second)
    assert saved["state"] == record.state_of(second) == "finished"
    assert saved["resumed"][0]["command"][:3] == ["fit", "--run", "last"]
    assert len(list((second / "previous_configs").glob("*/config.yaml"))) == 1

    with pytest.raises(SystemExit) as info:
        main(["fit", "--run", str(second)])
    assert info.value.code == 2
    assert f"{second} is finished: max_epochs 2, max_steps inf. To resume it, increase" in capsys.readouterr().err


EARLY = (
    "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/loss, patience: 0, min_delta: 9}}"
)


@pytest.mark.parametrize(
    ("step", "number", "more"),
    [
        (7, signal.SIGTERM, []),
        (12, signal.SIGINT, []),
        (20, signal.SIGINT, ["--trainer.check_val_every_n_epoch=2"]),
        (12, signal.SIGTERM, ["--trainer.check_val_every_n_epoch=2"]),
        (17, signal.SIGTERM, ["--trainer.limit_val_batches=0"]),
        (
            12,
            signal.SIGTERM,
            [
                "--trainer.limit_val_batches=0",
                "--model.lr_scheduler={class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}",
            ],
        ),
        (12, signal.SIGTERM, ["--callbacks=false", f"--trainer.callbacks=[{EARLY}]", "--trainer.max_epochs=4"]),
        (5, signal.SIGTERM, ["--trainer.val_check_interval=1"]),
        (3, signal.SIGINT, ["--trainer.limit_train_batches=1", "--trainer.max_epochs=6"]),
    ],
)
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    fast: list[str], step: int, number: int, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*fast, "--callbacks=false", "--model.optimizer.momentum=0.8", *more]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    stop = [f"--trainer.callbacks+={{class_path: test_resume.StopAt, init_args: {{step: {step}, number: {number}}}}}"]
    with pytest.raises(SystemExit) as info:
        main(["fit", *options, *stop, f"--runs_dir={tmp_path}"])
    assert info.value.code == 128 + number
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "interrupted"
    assert f"python -m project fit --run {run}" in capsys.readouterr().err
    assert torch.load(run / LAST, weights_only=True)["global_step"] == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main(["fit", "--run", str(run), "--trainer.callbacks=null", *more])
    assert equal(run, whole)
    assert rows(run) == rows(whole)


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--trainer.val_check_interval=0.4"],
        ["--trainer.check_val_every_n_epoch=2"],
        ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", *PLATEAU],
        ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", *PLATEAU, "--trainer.val_check_interval=0.4"],
    ],
    ids=["validation at the end", "validations within", "every second epoch", "plateau", "plateau within"],
)
def test_failing_twice_after_one_checkpoint_changes_nothing(fast: list[str], more: list[str], tmp_path: Path) -> None:
    options = [*fast, "--callbacks=false", "--trainer.max_epochs=3", *more]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    fail = "--trainer.callbacks=[{class_path: test_resume.FailAt, init_args: {step: 26}}]"
    for start in (options, ["--run", "last"]):
        with pytest.raises(SystemExit) as info:
            main(["fit", *start, fail, f"--runs_dir={tmp_path}"])
        assert info.value.code == 1
    main(["fit", "--run", "last", "--trainer.callbacks=null", f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    assert equal(run, whole)
    assert rows(run) == rows(whole)


def test_a_run_that_is_killed_before_its_last_checkpoint_resumes_from_the_best(fast: list[str], tmp_path: Path) -> None:
    options = [*fast, *CONSTANT, "--trainer.max_epochs=1"]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    arguments = f"{{note: {tmp_path / 'note'}, hook: on_train_epoch_end, rank: 0}}"
    fail = f"--trainer.callbacks=[{{class_path: failing.Fail, init_args: {arguments}}}]"
    with pytest.raises(SystemExit):
        main(["fit", *options, fail, f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    (run / LAST).unlink()  # both are written after the validation, best.ckpt first
    main(["fit", "--run", str(run), "--trainer.callbacks=null"])
    assert equal(run, whole)
    assert rows(run) == rows(whole)


def test_the_command_line_overrides_the_checkpoint(fast: list[str], tmp_path: Path) -> None:
    trace = ["--callbacks=false", "--trainer.callbacks=[test_resume.TraceLr]"]
    main(["fit", *fast, *trace, "--trainer.max_epochs=3", "--model.optimizer.lr=0.2", f"--runs_dir={tmp_path}"])
    wanted = dict(TraceLr.seen)
    TraceLr.seen.clear()
    run = main(["fit", *fast, *trace, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    assert TraceLr.seen[11] != pytest.approx(wanted[11])
    TraceLr.seen.clear()
    main(["fit", "--run", str(run), "--trainer.max_epochs=3", "--model.optimizer.lr=0.2"])
    assert min(TraceLr.seen) == 12
    for step, pair in TraceLr.seen.items():  # OneCycle over three epochs, as without the resume
        assert pair == pytest.approx(wanted[step]), step


def test_a_run_without_a_checkpoint_starts_from_scratch(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    before = rows(run)
    shutil.rmtree(run / "checkpoints")
    (run / record.FILE).write_text(json.dumps(record.read(run) | {"state": "running"}))
    main(["fit", "--run", str(run)])
    assert f"{run} has no checkpoint yet. Training starts from scratch." in capsys.readouterr().out
    assert rows(run) == before
    steps = [event.step for event in EventAccumulator(str(run)).Reload().Scalars("train/loss_step")]
    assert steps == [3, 7, 11]


def test_another_optimizer_starts_without_momentum_of_the_previous_one(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    more = ["--trainer.max_epochs=2", "--model.optimizer=torch.optim.AdamW"]
    cli = main(["fit", "--run", str(run), *more, "--model.optimizer.lr=0.001"])
    (optimizer,) = cli.trainer.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {int(state["step"]) for state in optimizer.state.values()} == {12}
    assert optimizer.param_groups[0]["lr"] == 0.001
    capsys.readouterr()
    rules = "--model.param_groups=[{pattern: fc3.*, lr: 0.5}]"
    with pytest.raises(SystemExit) as info:
        main(["fit", "--run", str(run), "--trainer.max_epochs=3", rules])
    assert info.value.code == 2
    assert "Expected param groups as in the checkpoint" in capsys.readouterr().err


def test_auto_starts_a_run_or_resumes_an_unfinished_one(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = [
        "--callbacks=false",
        f"--trainer.callbacks=[{{class_path: test_resume.StopAt, init_args: {{step: 15, number: {signal.SIGTERM}}}}}]",
    ]
    command = ["fit", *fast, *stop, "--run", "auto", f"--runs_dir={tmp_path}"]
    with pytest.raises(SystemExit, match="143"):
        main(list(command))
    (run,) = tmp_path.glob("lenet/*")
    assert main(list(command)).run_dir.resolve() == run.resolve()
    assert record.state_of(run) == "finished"
    with pytest.raises(SystemExit, match="143"):
        main(list(command))
    assert len(list(tmp_path.glob("lenet/*"))) == 2


def test_auto_takes_the_latest_unfinished_run_and_the_files_as_they_are_now(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model:\n  init_args:\n    optimizer:\n      init_args:\n        lr: 0.3\n")
    fail = ["--callbacks=false", "--trainer.callbacks=[test_resume.Fail]"]
    command = ["fit", *fast, f"--config={mine}", *CONSTANT[:1], *fail, "--run=auto", f"--runs_dir={tmp_path / 'runs'}"]
    with pytest.raises(SystemExit, match="1"):
        main(list(command))
    (first,) = (tmp_path / "runs").glob("*/*")
    second = first.with_name("2099-01-01_00-00-00")  # a later run of the same command line, which is finished
    shutil.copytree(first, second)
    (second / record.FILE).write_text(json.dumps(record.read(second) | {"state": "finished"}))
    assert expand_run(command)[-2:] == ["--run", str(first)]
    (second / record.FILE).write_text(json.dumps(record.read(second) | {"state": "interrupted"}))
    assert expand_run(command)[-2:] == ["--run", str(second)]
    capsys.readouterr()
    (second / record.FILE).write_text("")
    assert expand_run(command)[-2:] == ["--run", str(first)]
    assert capsys.readouterr().out.startswith(f"Skipped {second}: its run.json cannot be read.")
    os.environ["PROJECT_RUN"] = str(second)
    monkeypatch.setenv("LOCAL_RANK", "1")  # a process that Lightning launches uses the run that rank zero selected
    shutil.rmtree(second)
    assert expand_run(command)[-2:] == ["--run", str(second)]
    monkeypatch.delenv("LOCAL_RANK")

    mine.write_text(mine.read_text().replace("0.3", "0.001"))
    TraceLr.seen.clear()
    monkeypatch.setattr(Fail, "on_train_batch_end", TraceLr.on_train_batch_start)
    monkeypatch.setattr(Fail, "seen", TraceLr.seen, raising=False)
    cli = main(list(command))
    assert cli.run_dir.resolve() == first.resolve()
    assert {lr for lr, _ in TraceLr.seen.values()} == {0.001}
    assert "optimizer.init_args.lr: 0.3 -> 0.001" in capsys.readouterr().out


def test_an_override_without_a_checkpoint_remains_in_effect(fast: list[str], tmp_path: Path) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    override = [
        "--trainer.max_epochs=2",
        "--model.optimizer.lr=0.01",
        "--callbacks=false",
        "--trainer.callbacks=[test_resume.Fail]",
    ]
    with pytest.raises(SystemExit, match="1"):
        main(["fit", "--run", str(run), *override])
    assert record.state_of(run) == "failed"
    TraceLr.seen.clear()
    main(["fit", "--run", str(run), "--trainer.callbacks=[test_resume.TraceLr]"])
    assert set(TraceLr.seen) == set(range(12, 24))
    assert {lr for lr, _ in TraceLr.seen.values()} == {0.01}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--trainer.max_epochs=2", "--trainer.accelerator=gpu"], "No supported gpu backend found!"),
        (["--trainer.max_epochs=2", "--model.param_groups=[{pattern: fc3.*, lr: 0.5}]"], "Expected param groups as in"),
        (["--trainer.max_epochs=2", "--seed_everything=5"], "Expected --seed_everything 0 as before, but got 5"),
        (["--model.optimizer.lr=0.5"], "To resume it, increase --trainer.max_epochs"),
    ],
)
def test_a_change_that_is_rejected_leaves_the_run_unchanged(
    fast: list[str], change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    files = ("config.yaml", record.FILE, "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    before = [(run / name).read_bytes() for name in files]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--run", str(run), *change])
    assert message in capsys.readouterr().err
    assert [(run / name).read_bytes() for name in files] == before
    assert not (run / "previous_configs").exists()
    assert record.state_of(run) == "finished"


def test_the_last_checkpoint_is_that_of_the_last_step(fast: list[str], tmp_path: Path) -> None:
    whole = main(["fit", *fast, *CONSTANT, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_steps=20", f"--runs_dir={tmp_path}"]).run_dir
    assert torch.load(run / LAST, weights_only=True)["global_step"] == 20
    main(["fit", "--run", str(run), "--trainer.max_steps=24"])
    assert equal(run, whole)


def test_a_checkpoint_of_another_run_does_not_affect_the_best_of_the_new_one(fast: list[str], tmp_path: Path) -> None:
    old = main(["fit", *fast, *CONSTANT, f"--runs_dir={tmp_path}"]).run_dir
    worse = ["--trainer.max_epochs=3", "--model.optimizer.lr=5", "--trainer.gradient_clip_val=1"]
    new = main(["fit", *fast, *CONSTANT, *worse, f"--ckpt_path={old / LAST}", f"--runs_dir={tmp_path}"]).run_dir
    assert new != old
    assert (new / "checkpoints/best.ckpt").is_file()


def test_a_plateau_continues_if_only_the_length_of_training_changes(fast: list[str], tmp_path: Path) -> None:
    plateau = "{monitor: val/loss, patience: 0, threshold: 9}"
    plateau = f"{{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {plateau}}}"
    options = [
        *fast,
        f"--model.lr_scheduler={plateau}",
        "--callbacks=false",
        "--trainer.callbacks=[test_resume.TraceLr]",
    ]
    TraceLr.seen.clear()
    main(["fit", *options, "--trainer.max_epochs=4", f"--runs_dir={tmp_path}"])
    wanted = dict(TraceLr.seen)
    assert len({lr for lr, _ in wanted.values()}) > 2
    TraceLr.seen.clear()
    run = main(["fit", *options, f"--runs_dir={tmp_path}"]).run_dir
    main(["fit", "--run", str(run), "--trainer.max_epochs=4"])
    assert TraceLr.seen == wanted


@pytest.mark.parametrize("more", [[], ["--trainer.limit_val_batches=0"], ["--trainer.val_check_interval=0.4"]])
def test_a_plateau_reads_the_training_loss_of_the_epoch_that_a_run_resumes_in(
    fast: list[str], more: list[str], tmp_path: Path
) -> None:
    plateau = "{monitor: train/loss, patience: 0, threshold: 0.0001}"
    plateau = f"{{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {plateau}}}"
    options = [
        *fast,
        f"--model.lr_scheduler={plateau}",
        "--callbacks=false",
        "--trainer.callbacks=[test_resume.TraceLr]",
        *more,
    ]
    TraceLr.seen.clear()
    whole = main(["fit", *options, "--trainer.max_epochs=5", f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    wanted = dict(TraceLr.seen)
    TraceLr.seen.clear()
    run = main(["fit", *options, "--trainer.max_epochs=3", f"--runs_dir={tmp_path}"]).run_dir
    main(["fit", "--run", str(run), "--trainer.max_epochs=5"])
    assert TraceLr.seen == wanted
    assert equal(run, whole)
    key = "lr_schedulers"
    assert torch.load(run / LAST, weights_only=True)[key] == torch.load(whole / LAST, weights_only=True)[key]


@pytest.mark.parametrize(("batch_size", "steps"), [(16, 78), (64, 19)])
def test_a_new_batch_size_starts_after_the_end_of_an_epoch(
    fast: list[str], batch_size: int, steps: int, tmp_path: Path
) -> None:
    trace = ["--callbacks=false", "--trainer.callbacks=[test_resume.TraceLr]", "--trainer.limit_train_batches=1.0"]
    size = [f"--data.batch_size={batch_size}"]
    TraceLr.seen.clear()
    main(["fit", *fast, *trace, *size, f"--runs_dir={tmp_path}"])
    wanted = [TraceLr.seen[step] for step in range(steps, 2 * steps)]
    TraceLr.seen.clear()
    run = main(["fit", *fast, *trace, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    TraceLr.seen.clear()
    main(["fit", "--run", str(run), "--trainer.max_epochs=2", *size])
    assert [TraceLr.seen[step] for step in range(39, 39 + steps)] == [pytest.approx(one) for one in wanted]
    assert max(TraceLr.seen) == 38 + steps


def test_patience_of_the_command_line_overrides_the_checkpoint(fast: list[str], tmp_path: Path) -> None:
    options = [*fast, *CONSTANT[:1], f"--runs_dir={tmp_path}"]
    run = main(
        ["fit", *options, "--callbacks=false", f"--trainer.callbacks=[{EARLY.replace('patience: 0', 'patience: 1')}]"]
    ).run_dir
    more = ["--trainer.max_epochs=5", f"--trainer.callbacks=[{EARLY.replace('patience: 0', 'patience: 3')}]"]
    assert main(["fit", "--run", str(run), *more]).trainer.current_epoch == 4  # the best one, and three more


def test_accumulation_that_a_callback_sets_is_resumed(fast: list[str], tmp_path: Path) -> None:
    growing = "lightning.pytorch.callbacks.GradientAccumulationScheduler, init_args: {scheduling: {0: 1, 1: 3}}"
    options = [*fast, *CONSTANT[:1], "--callbacks=false", f"--trainer.callbacks=[{{class_path: {growing}}}]"]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    stop = [
        f"--trainer.callbacks+={{class_path: test_resume.StopAt, init_args: {{step: 14, number: {signal.SIGTERM}}}}}"
    ]
    with pytest.raises(SystemExit, match="143"):
        main(["fit", *options, *stop, f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    assert main(["fit", "--run", str(run), options[-1]]).trainer.global_step == 16
    assert equal(run, whole)


class StopGroup(Callback):
    """Send SIGTERM to all processes, including DataLoader workers, in a validation."""

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not trainer.sanity_checking and args[2] == 1:
            os.killpg(0, signal.SIGTERM)


def test_a_signal_to_all_processes_lets_a_validation_finish(fast: list[str], tmp_path: Path) -> None:
    workers = [
        "--data.num_workers=2",
        "--data.cache=none",
        "--callbacks=false",
        "--trainer.callbacks=[test_resume.StopGroup]",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "project", "fit", *fast, *workers, f"--runs_dir={tmp_path}"],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 143, done.stderr[-2000:]
    (run,) = tmp_path.glob("lenet/*")
    assert torch.load(run / LAST, weights_only=True)["global_step"] == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_test_is_repeated_when_the_run_is_resumed(fast: list[str], number: int, tmp_path: Path) -> None:
    command = ["fit", *fast, *CONSTANT, "--test_after_fit=true", "--run=auto", f"--runs_dir={tmp_path}"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ImageClassifier, "on_test_start", lambda self: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit, match=str(128 + number)):
            main(list(command))
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "interrupted"
    assert not list(run.glob("test/*/results.json"))
    before = weights(run)
    assert main(list(command)).run_dir.resolve() == run.resolve()
    assert record.state_of(run) == "finished"
    assert len(list(run.glob("test/*/results.json"))) == 1
    assert all(torch.equal(before[name], after) for name, after in weights(run).items())
    assert rows(run)[-1]["step"] == "23"


def test_a_config_with_a_device_in_it_can_be_read_again(fast: list[str], tmp_path: Path) -> None:
    average = "{class_path: lightning.pytorch.callbacks.StochasticWeightAveraging, init_args: {swa_lrs: 0.01}}"
    options = [
        *fast,
        "--model.lr_scheduler=null",
        "--callbacks=false",
        f"--trainer.callbacks=[{average}]",
        f"--runs_dir={tmp_path}",
    ]
    run = main(["fit", *options, "--trainer.max_epochs=1"]).run_dir
    assert main(["fit", "--run", str(run), "--trainer.max_epochs=2"]).trainer.global_step == 24


def test_unsafe_loading_resumes_with_an_object_of_the_user(fast: list[str], tmp_path: Path) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    torch.save(torch.load(run / LAST, weights_only=True) | {"mine": Path("object")}, run / LAST)
    more = ["--trainer.max_epochs=2", "--weights_only=false"]
    with pytest.warns(UserWarning, match="weights_only"):
        again = main(["fit", "--run", str(run), *more])
    assert again.trainer.global_step == 24
    assert [row["step"] for row in rows(run) if "val/loss" in row] == ["11", "23"]


def test_rows_exist_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "metrics.csv"
    table.write_text("a,step\n1,0\n2,1\n3,2\n")
    seen = []

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.remove", "os.rename") and str(tmp_path) in str(args):
            seen.append(table.read_text() if table.exists() else "gone")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *pair: (audit("os.rename", pair), os.rename(*pair)))
        patched.setattr(os, "remove", lambda path: (audit("os.remove", (path,)), Path(path).unlink()))
        logger = CSVLogger(tmp_path, name="", version="")
        truncate(open_table(logger), 2)
    assert seen
    assert all("2,1" in text for text in seen)
    assert table.read_text() == "a,step\n1,0\n2,1\n"
    logger.log_metrics({"a": 4, "b": 5}, 2)
    logger.save()
    assert table.read_text().split() == ["a,b,step", "1,,0", "2,,1", "4,5,2"]


def test_rows_follow_a_column_whose_name_has_a_comma(tmp_path: Path) -> None:
    for step in range(2):
        logger = CSVLogger(tmp_path, name="", version="")
        table = open_table(logger)
        if step == 1:
            truncate(table, 1)
        logger.log_metrics({'test/acc/cat, "grey"': 0.5}, step)
        logger.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["step", 'test/acc/cat, "grey"'], ["0", "0.5"], ["1", "0.5"]]


def test_a_name_that_is_not_a_run_never_starts_one(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("last", "nowhere", str(tmp_path)):
        with pytest.raises(SystemExit) as info:
            main(["fit", *fast, "--run", name, f"--runs_dir={tmp_path / 'runs'}"])
        assert info.value.code == 2
        assert "Expected " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_running_is_not_started_twice(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    auto = ["fit", "--run", "auto", f"--runs_dir={tmp_path}"]
    saved = record.read(run)
    (run / record.FILE).write_text(json.dumps(saved | {"state": "running", "pid": 77, "command": auto}))
    assert record.state_of(run) == "killed"
    config = (run / "config.yaml").read_bytes()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run / record.LOCK)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert record.state_of(run) == "running"
        assert "--ckpt_path" not in expand_run(auto)  # it starts a new run
        monkeypatch.setenv("RANK", "1")  # another rank of the training
        assert expand_run(auto)[-2:] == ["--ckpt_path", str(run / LAST)]
        monkeypatch.delenv("RANK")
        with pytest.raises(SystemExit) as info:
            main(["fit", "--run", str(run), "--trainer.max_epochs=2"])
        other.kill()
    assert info.value.code == 2
    assert f"Expected a run that is not running, but {run} is running as process 77" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == config
    assert record.state_of(run) == "killed"


def test_a_config_alone_repeats_a_run_to_the_bit(fast: list[str], tmp_path: Path) -> None:
    dropout = [
        "--model.network=lightning_modules.networks.MLP",
        "--callbacks=false",
        "--trainer.callbacks=[callbacks.EMA]",
    ]
    run = main(["fit", *fast, *dropout, f"--runs_dir={tmp_path}", "--seed_everything=3"]).run_dir
    again = main(["fit", "--config", str(run / "config.yaml"), f"--runs_dir={tmp_path / 'again'}"]).run_dir
    assert equal(run, again)
    assert rows(run) == rows(again)


def test_changed_images_are_reported(fast: list[str], sample_root: Path, tmp_path: Path) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    saved = record.read(run)
    assert saved["data"]["root"] == str(sample_root)
    (run / record.FILE).write_text(json.dumps(saved | {"data": saved["data"] | {"digest": "another"}}))
    with pytest.warns(UserWarning, match="The images or their split have changed since"):
        main(["fit", "--run", str(run), "--trainer.max_epochs=2"])


def test_a_failed_run_says_why(fast: list[str], tmp_path: Path) -> None:
    class_path = "--trainer.callbacks=[test_resume.Fail]"
    with pytest.raises(SystemExit, match="1"):
        main(["fit", *fast, class_path, f"--runs_dir={tmp_path}"])
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "failed"
    assert record.read(run)["error"] == "ValueError: not today"


class Fail(Callback):
    """Fail in the first step."""

    def on_train_batch_end(self, *args: Any) -> None:
        raise ValueError("not today")


def test_the_number_of_tests_of_a_run_is_recorded(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    for times in (1, 2):
        output = main(["test", "--run", str(run)]).output_dir
        results = json.loads((output / "results.json").read_text())
        assert results["times_tested"] == times
        assert results["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
        assert 0 <= results["metrics"]["test/acc"] <= 1
    assert "test 2 of this run: do not select models by it" in capsys.readouterr().out
