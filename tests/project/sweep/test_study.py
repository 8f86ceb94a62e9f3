import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from project.errors import RunError
from project.sweep.plan import read_plan
from project.sweep.study import Sweep, Trials, lock, read_sweep, write_sweep

LR = "parameters: {model.optimizer.lr: {low: 0.001, high: 0.5, log: true}, data.batch_size: {low: 8, high: 64}}"


@pytest.fixture
def open_trials(tmp_path: Path):
    def open_(text: str, name: str = "sweep") -> Trials:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "sweep.yaml").write_text(text)
        return Trials(folder, Sweep(read_plan(folder / "sweep.yaml"), [], "val/acc", "max", str(Path.cwd())))

    return open_


def parameters(trials: Trials) -> list[dict[str, Any]]:
    """Run all trials, and return their parameters."""
    while taken := trials.take():
        trial, log = taken
        trials.end(trial, TrialState.COMPLETE, trial.params["model.optimizer.lr"])
        log.close()
    return [trial.params for trial in trials.study.trials]


def test_random_parameters_depend_only_on_plan_seed_and_number(open_trials) -> None:
    first = parameters(open_trials(f"{{method: random, trials: 6, {LR}}}", "a"))
    assert first == parameters(open_trials(f"{{method: random, trials: 6, {LR}}}", "b"))
    assert first[:3] == parameters(open_trials(f"{{method: random, trials: 3, {LR}}}", "c"))
    assert first != parameters(open_trials(f"{{method: random, trials: 6, seed: 1, {LR}}}", "d"))
    rates, sizes = zip(*(point.values() for point in first), strict=True)
    assert len({*rates}) == 6
    assert all(0.001 <= rate <= 0.5 and len(f"{rate:.9g}") <= 8 for rate in rates)
    assert all(type(size) is int and 8 <= size <= 64 for size in sizes)


def test_tpe_parameters_depend_only_on_plan_and_results(open_trials) -> None:
    text = f"{{trials: 14, {LR}}}"
    assert parameters(open_trials(text, "a")) == parameters(open_trials(text, "b"))


def test_no_trial_is_run_twice_and_a_killed_one_is_taken_first(open_trials) -> None:
    text = "parameters: {a: [0, 1, 2]}"
    first, second = open_trials(text), open_trials(text)
    a, log_of_a = first.take()
    b, log_of_b = second.take()
    assert (a.number, b.number) == (0, 1)
    log_of_a.close()  # what a kill does
    again, log = second.take()
    assert (again.number, again.params) == (0, {"a": 0})
    c, log_of_c = first.take()
    assert c.number == 2
    assert first.take() is None
    second.end(again, TrialState.COMPLETE, 1.0)
    log.close()
    log_of_b.close()
    assert first.take()[0].number == 1
    assert not log_of_c.closed


def test_a_trial_stays_locked_while_a_process_writes_its_log(open_trials) -> None:
    trials = open_trials("parameters: {a: [0]}")
    _, log = trials.take()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    log.close()  # the worker was killed
    assert trials.take() is None
    process.communicate(b"\n")
    assert trials.take()[0].number == 0


def test_a_line_of_a_killed_process_is_removed_from_the_journal(open_trials) -> None:
    trials = open_trials("parameters: {a: [0, 1]}")
    trials.take()
    with (trials.folder / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert open_trials("parameters: {a: [0, 1]}").take()[0].number in (0, 1)
    lines = (trials.folder / "journal.log").read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_the_worse_trials_are_stopped(open_trials) -> None:
    trials = open_trials("{parameters: {a: [0, 1, 2]}, pruning: {min_resource: 2, reduction_factor: 2}}")
    stopped = []
    for value in (0.8, 0.3, 0.9):
        trial, log = trials.take()
        stopped.append([trials.report(trial, step, value) for step in (1, 2)])
        trials.end(trial, TrialState.COMPLETE, value)
        log.close()
    assert stopped == [[False, False], [False, True], [False, False]]


def test_a_locked_file_is_reported(tmp_path: Path) -> None:
    first = lock(tmp_path / "file")
    assert lock(tmp_path / "file") is None
    first.close()
    assert lock(tmp_path / "file") is not None


def test_a_sweep_is_read_as_it_was_written_in_its_working_directory(open_trials, tmp_path: Path, monkeypatch) -> None:
    trials = open_trials(f"{{trials: 2, pruning: {{min_resource: 2}}, {LR}}}")
    sweep = Sweep(trials.plan, ["--config", "a.yaml"], "val/loss", "min", str(Path.cwd()))
    write_sweep(trials.folder, sweep)
    assert read_sweep(trials.folder) == sweep
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="as working directory"):
        read_sweep(trials.folder)
