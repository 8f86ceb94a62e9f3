import errno
import os
import signal
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest
from optuna.trial import TrialState
from run_folders import write_run

from project.__main__ import main
from project.errors import RunError
from project.runs.folders import all_runs
from project.sweep import worker
from project.sweep.plan import read_plan
from project.sweep.study import Sweep, Trials

SHORT = ["--callbacks=false", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"]


class InProcess:
    """Runs ``fit`` in this process, instead of in a new one, and exits with a code of ``codes``."""

    codes: ClassVar[list[int]] = []  # exit codes of the next processes; 0 once there are none
    commands: ClassVar[list[list[str]]] = []
    text = ""  # output of processes that fail

    def __init__(self, args: list[str], log: BinaryIO) -> None:
        self.commands.append(args)
        self.returncode = self.codes.pop(0) if self.codes else 0
        with TextIOWrapper(os.fdopen(os.dup(log.fileno()), "wb"), write_through=True) as stream:
            if self.returncode == 0 or self.returncode == -signal.SIGKILL:
                extra = ["--trainer.max_epochs=2"] if "--run" in args else []
                if self.returncode:  # as far as the first epoch
                    extra = ["--trainer.max_epochs=1"]
                with redirect_stdout(stream), redirect_stderr(stream):
                    main([*args, *extra])
            else:
                stream.write(self.text)

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None:
        """Do nothing: it has exited."""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[InProcess]:
    for name, value in {"codes": [], "commands": [], "text": ""}.items():
        monkeypatch.setattr(InProcess, name, value)
    monkeypatch.setattr(worker, "start", InProcess)
    return InProcess


@pytest.fixture
def make_sweep(fast: list[str], tmp_path: Path):
    def make(text: str, **changes: Any) -> tuple[Path, Sweep]:
        file, folder = tmp_path / "plan.yaml", tmp_path / "runs/sweeps/plan/now"
        file.write_text(text)
        folder.mkdir(parents=True)
        args = [*fast, *SHORT, f"--runs_dir={tmp_path / 'runs'}"]
        return folder, Sweep(read_plan(file), args, "val/acc", "max", str(Path.cwd()))._replace(**changes)

    return make


def states(folder: Path, sweep: Sweep) -> list[str]:
    return [trial.state.name for trial in Trials(folder, sweep).study.trials]


def test_each_trial_is_a_run_whose_best_validation_is_its_value(process, make_sweep, capsys) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1, 0.01]}")
    assert worker.work(Trials(folder, sweep)) == 0
    trials = Trials(folder, sweep).study.trials
    assert [Path(trial.user_attrs["run"]) for trial in trials] == all_runs(folder.parents[2])
    assert [command[-1] for command in process.commands] == ["--model.optimizer.lr=0.1", "--model.optimizer.lr=0.01"]
    for trial in trials:
        assert trial.value == max(worker.validations(Path(trial.user_attrs["run"]), "val/acc"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Trial 1 of 2: lr 0.1 ... val/acc ")
    assert "(best: trial " in lines[1]
    assert worker.work(Trials(folder, sweep)) == 0  # nothing is left to do
    assert len(process.commands) == 2


def test_a_killed_trial_is_continued_in_its_run(process, make_sweep) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1]}")
    process.codes += [-signal.SIGKILL]
    real = worker.record.state_of
    with pytest.MonkeyPatch.context() as patch:  # in-process, the first run has finished its only epoch
        patch.setattr(worker.record, "state_of", lambda run: "killed" if len(process.commands) == 1 else real(run))
        worker.work(Trials(folder, sweep))
    (run,) = all_runs(folder.parents[2])
    assert process.commands[1] == ["fit", "--run", str(run)]
    assert states(folder, sweep) == ["COMPLETE"]
    assert len(worker.validations(run, "val/acc")) == 2


def test_failed_trials_are_not_repeated_and_give_their_reason(process, make_sweep, capsys) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1, 0.2]}")
    process.codes += [2, 1]
    process.text = "Traceback\nerror: Expected a finite loss, but got NaN.\n"
    assert worker.work(Trials(folder, sweep)) == 0
    assert len(process.commands) == 2
    assert states(folder, sweep) == ["FAIL", "FAIL"]
    assert "failed: Expected a finite loss, but got NaN." in capsys.readouterr().out


def test_a_trial_that_is_always_killed_fails(process, make_sweep) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1]}")
    process.codes += [137 + 9] * 9
    worker.work(Trials(folder, sweep))
    assert len(process.commands) == worker.STARTS
    assert "killed 3 times" in Trials(folder, sweep).study.trials[0].user_attrs["reason"]


def test_a_full_disk_stops_the_sweep_and_the_trial_is_continued_later(process, make_sweep) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1, 0.2]}")
    process.codes += [2]
    process.text = "error: [Errno 28] No space left on device: 'runs/a/last.ckpt'\n"
    with pytest.raises(RunError, match=r"^Expected disk space for .*\. Free some and resume: .* sweep --sweep_dir "):
        worker.work(Trials(folder, sweep))
    assert states(folder, sweep) == ["RUNNING"]
    worker.work(Trials(folder, sweep))
    assert states(folder, sweep) == ["COMPLETE", "COMPLETE"]


def test_a_journal_that_cannot_be_written_ends_the_sweep(process, make_sweep, monkeypatch) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1]}")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Trials, "end", fail)
        with pytest.raises(OSError, match="No space left"):
            worker.work(Trials(folder, sweep))
    worker.work(Trials(folder, sweep))  # the run is finished, so that only its value is recorded
    assert states(folder, sweep) == ["COMPLETE"]
    assert len(process.commands) == 1


def test_a_trial_that_is_worse_than_the_others_is_stopped_after_a_validation(make_sweep, monkeypatch, capsys) -> None:
    folder, sweep = make_sweep(
        "{parameters: {model.optimizer.lr: [0.1, 0.2]}, pruning: {min_resource: 2, reduction_factor: 2}}"
    )

    class Validates:
        """Writes a validation whenever it is polled, up to the fifth: worse ones in the second trial."""

        processes: ClassVar[list[Any]] = []

        def __init__(self, args: list[str], log: BinaryIO) -> None:
            self.processes.append(self)
            self.values: list[float] = []
            self.value = 0.9 / len(self.processes)
            self.run = write_run(folder.parents[2] / f"lenet/{len(self.processes)}", (), state="running")
            log.write(f"Run: {self.run}\n".encode())
            self.returncode: int | None = None

        def poll(self) -> int | None:
            if len(self.values) == 5:
                self.returncode = 0
                (self.run / "run.json").write_text('{"state": "finished"}')
            self.values.append(self.value)
            rows = [f"{epoch},{epoch},{value}" for epoch, value in enumerate(self.values)]
            (self.run / "metrics.csv").write_text("\n".join(["epoch,step,val/acc", *rows, ""]))
            return self.returncode

        def terminate(self) -> None:
            self.returncode = 128 + signal.SIGTERM

    monkeypatch.setattr(worker, "start", Validates)
    monkeypatch.setattr(worker, "INTERVAL", 0.001)
    worker.work(Trials(folder, sweep))
    assert states(folder, sweep) == ["COMPLETE", "PRUNED"]
    assert Trials(folder, sweep).study.trials[1].intermediate_values == {1: 0.45, 2: 0.45}
    assert "stopped early (best: trial 1, 90.00%)" in capsys.readouterr().out


def test_a_trial_without_values_of_the_metric_fails(process, make_sweep) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1]}", metric="val/gone")
    worker.work(Trials(folder, sweep))
    assert "no finite value of val/gone" in Trials(folder, sweep).study.trials[0].user_attrs["reason"]


def test_a_signal_stops_the_trial_and_the_sweep(make_sweep, monkeypatch) -> None:
    folder, sweep = make_sweep("parameters: {model.optimizer.lr: [0.1, 0.2]}")

    class Waiting(InProcess):
        def __init__(self, args: list[str], log: BinaryIO) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            self.returncode = 0

        def poll(self) -> int | None:
            return self.returncode or None

        def terminate(self) -> None:
            self.returncode = 128 + signal.SIGTERM

    monkeypatch.setattr(worker, "start", Waiting)
    assert worker.work(Trials(folder, sweep)) == signal.SIGINT
    assert states(folder, sweep) == ["RUNNING"]
    assert Trials(folder, sweep).take()[0].state == TrialState.RUNNING


def test_the_first_run_that_a_log_names_is_that_of_the_trial(tmp_path: Path) -> None:
    log = tmp_path / "000.log"
    assert worker.run_of(log) is None
    run, test = tmp_path / "runs/a/b", tmp_path / "runs/a/b/test/c"
    log.write_text(f"Run: {tmp_path}/gone\nRun: {run}\nRun: {test}\n")
    test.mkdir(parents=True)
    assert worker.run_of(log) is None  # killed before training began
    (test / "config.yaml").touch()
    (run / "config.yaml").touch()
    assert worker.run_of(log) == run
