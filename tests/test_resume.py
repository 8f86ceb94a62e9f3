"""A run that goes on: the same as if it had never been stopped, but for what the command line says."""

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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project import record
from project.__main__ import main
from project.runs import LAST, expand_run

CONSTANT = ["--model.lr_scheduler=null", "--trainer.callbacks=null"]
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(99)
"""


class StopAt(Callback):
    """Send the process of a rank a signal behind a step."""

    def __init__(self, step: int, number: int, rank: int = 0) -> None:
        self.step, self.number, self.rank = step, number, rank

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class TraceLr(Callback):
    """Note the learning rate and momentum of each step."""

    seen: ClassVar[dict[int, tuple[float, float]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen[trainer.global_step] = (group["lr"], group.get("momentum", group.get("betas", [0])[0]))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / LAST, weights_only=True)["state_dict"]


def equal(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_goes_on_in_its_folder(fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = main(["fit", *fast, *CONSTANT, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    first = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    capsys.readouterr()
    second = main(["fit", "--run", "last", "--trainer.max_epochs=2", f"--runs_dir={tmp_path}"]).run_dir
    assert second.resolve() == first.resolve()
    assert equal(second, whole)
    assert rows(second) == rows(whole)
    told = capsys.readouterr().out
    assert told.count("Changed ") == 1
    assert "Changed      trainer.max_epochs: 1 -> 2" in told
    found = record.read(second)
    assert found["state"] == record.state_of(second) == "finished"
    assert found["resumed"][0]["command"][:3] == ["fit", "--run", "last"]
    assert len(list((second / "before").glob("*/config.yaml"))) == 1

    with pytest.raises(SystemExit) as info:
        main(["fit", "--run", str(second)])
    assert info.value.code == 2
    assert "has trained for its 2 epochs. To train on, give a larger --trainer.max_epochs" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "number"), [(7, signal.SIGTERM), (12, signal.SIGINT), (20, signal.SIGINT)])
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    fast: list[str], step: int, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*fast, "--trainer.callbacks=null", "--model.optimizer.momentum=0.8"]
    whole = main(["fit", *options, f"--runs_dir={tmp_path / 'whole'}"]).run_dir
    stop = [f"--trainer.callbacks+={{class_path: test_resume.StopAt, init_args: {{step: {step}, number: {number}}}}}"]
    with pytest.raises(SystemExit) as info:
        main(["fit", *options, *stop, f"--runs_dir={tmp_path}"])
    assert info.value.code == 128 + number
    (run,) = tmp_path.glob("lenet/*")
    assert record.state_of(run) == "interrupted"
    assert f"python -m project fit --run {run}" in capsys.readouterr().err
    # an epoch's last step has a validation behind it, which ends, and the next step too
    assert torch.load(run / LAST, weights_only=True)["global_step"] == step + (step == 12)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main(["fit", "--run", str(run), "--trainer.callbacks=null"])
    assert equal(run, whole)
    assert rows(run) == rows(whole)


def test_the_command_line_wins_over_the_checkpoint(fast: list[str], tmp_path: Path) -> None:
    trace = ["--trainer.callbacks=[test_resume.TraceLr]"]
    main(["fit", *fast, *trace, "--trainer.max_epochs=3", "--model.optimizer.lr=0.2", f"--runs_dir={tmp_path}"])
    wanted = dict(TraceLr.seen)
    TraceLr.seen.clear()
    run = main(["fit", *fast, *trace, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    assert TraceLr.seen[11] != pytest.approx(wanted[11])
    TraceLr.seen.clear()
    main(["fit", "--run", str(run), "--trainer.max_epochs=3", "--model.optimizer.lr=0.2"])
    assert min(TraceLr.seen) == 12
    for step, pair in TraceLr.seen.items():  # OneCycle over three epochs, as if from the start
        assert pair == pytest.approx(wanted[step]), step


def test_a_run_without_a_checkpoint_begins_again(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    before = rows(run)
    shutil.rmtree(run / "checkpoints")
    (run / record.FILE).write_text(json.dumps(record.read(run) | {"state": "running"}))
    main(["fit", "--run", str(run)])
    assert f"{run} has no checkpoint yet: it begins again." in capsys.readouterr().out
    assert rows(run) == before
    steps = [event.step for event in EventAccumulator(str(run)).Reload().Scalars("train/loss_step")]
    assert steps == [3, 7, 11]


def test_another_optimizer_begins_without_the_old_ones_momentum(
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


def test_auto_starts_a_run_or_goes_on_with_one_that_has_not_finished(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = [
        f"--trainer.callbacks=[{{class_path: test_resume.StopAt, init_args: {{step: 15, number: {signal.SIGTERM}}}}}]"
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


def test_a_name_that_is_no_run_never_starts_one(
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
    found = record.read(run)
    (run / record.FILE).write_text(json.dumps(found | {"state": "running", "pid": 77, "command": auto}))
    assert record.state_of(run) == "killed"
    config = (run / "config.yaml").read_bytes()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run / record.LOCK)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert record.state_of(run) == "running"
        assert "--ckpt_path" not in expand_run(auto)  # but a new run
        monkeypatch.setenv("RANK", "1")  # a process of the training that runs it
        assert expand_run(auto)[-2:] == ["--ckpt_path", str(run / LAST)]
        monkeypatch.delenv("RANK")
        with pytest.raises(SystemExit) as info:
            main(["fit", "--run", str(run), "--trainer.max_epochs=2"])
        other.kill()
    assert info.value.code == 2
    assert f"Expected a run that no process trains, but {run} is running, as process 77" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == config
    assert record.state_of(run) == "killed"


def test_a_config_alone_repeats_a_run_to_the_bit(fast: list[str], tmp_path: Path) -> None:
    dropout = ["--model.network=lightning_modules.networks.MLP", "--trainer.callbacks=[callbacks.EMA]"]
    run = main(["fit", *fast, *dropout, f"--runs_dir={tmp_path}", "--seed_everything=3"]).run_dir
    again = main(["fit", "--config", str(run / "config.yaml"), f"--runs_dir={tmp_path / 'again'}"]).run_dir
    assert equal(run, again)
    assert rows(run) == rows(again)


def test_changed_images_are_told(fast: list[str], sample_root: Path, tmp_path: Path) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    found = record.read(run)
    assert found["data"]["root"] == str(sample_root)
    (run / record.FILE).write_text(json.dumps(found | {"data": found["data"] | {"digest": "another"}}))
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


def test_how_often_a_run_was_tested_is_written_down(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(["fit", *fast, *CONSTANT, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    for times in (1, 2):
        output = main(["test", "--run", str(run)]).output_dir
        found = json.loads((output / "results.json").read_text())
        assert found["times_tested"] == times
        assert found["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
        assert 0 <= found["metrics"]["test/acc"] <= 1
    assert "test 2 of this run: no choice may follow from it" in capsys.readouterr().out
