"""Run the trials of a sweep one after another, each as a process of ``fit``."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

from optuna.trial import FrozenTrial, TrialState

from project.errors import RunError
from project.runs import record
from project.runs.config import CONFIG
from project.runs.metrics import format_metric, read_metrics
from project.sweep.plan import options_of, short_names
from project.sweep.study import Sweep, Trials

STARTS = 3  # of a trial by one process: one that is killed each time, such as for lack of memory, has failed
INTERVAL = 0.2  # seconds between looks at a trial
GRACE = 10.0  # seconds that a trial whose worker was killed may need to stop after its step
ROOM = 2**20  # bytes; with less, a trial has failed because the disk is full


class Signals:
    """Count SIGINT, SIGTERM and SIGHUP instead of exiting; one that is ignored at the start stays ignored."""

    def __init__(self) -> None:
        self.count, self.number = 0, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count, self.number = self.count + 1, number


def work(folder: Path, sweep: Sweep) -> int:
    """Run trials until all are finished or run by other processes; return the signal that stopped this one, or 0.

    Raises:
        RunError: The disk is full.
    """
    trials, deadline = Trials(folder, sweep), time.monotonic() + GRACE
    names = short_names(sweep.plan.swept)
    with Signals() as signals:
        while not signals.number:
            if (taken := trials.take()) is None:
                if not trials.unfinished() or time.monotonic() > deadline:
                    break
                time.sleep(INTERVAL)
                continue
            trial, log = taken
            words = ", ".join(f"{names[key]} {value}" for key, value in trial.params.items() if key in names)
            print(f"Trial {trial.number + 1} of {sweep.plan.trials}: {words} ...", end=" ", flush=True)
            with log:
                print(_run(trials, trial, log, sweep, signals), flush=True)
            deadline = time.monotonic() + GRACE
    return signals.number


def _run(trials: Trials, trial: FrozenTrial, log: BinaryIO, sweep: Sweep, signals: Signals) -> str:
    """Start or continue a trial, record its end, and return it in words."""
    file, reason = trials.log(trial.number), ""
    for _ in range(STARTS):
        run = run_of(file)
        pruned, code = False, 0
        if run is None or record.state_of(run) != "finished":
            given = ["--run", str(run)] if run is not None else [*sweep.args, *options_of(trial.params)]
            pruned, code = _train(trials, trial, log, sweep, signals, given)
            run = run_of(file)
        facts: dict[str, str | float] = {} if run is None else {"run": str(run), "minutes": record.seconds(run) / 60}
        if run is not None and record.state_of(run) == "finished":
            if values := validations(run, sweep.metric):
                value = (max if sweep.mode == "max" else min)(values)
                trials.end(trial, TrialState.COMPLETE, value, **facts)
                return f"{sweep.metric} {score(value, sweep.metric)}{_best(trials, sweep)}"
            reason = f"no finite value of {sweep.metric} in {run}"
            break
        if pruned:
            trials.end(trial, TrialState.PRUNED, **facts)
            return f"stopped early{_best(trials, sweep)}"
        if signals.number:
            return "interrupted"
        reason = last_error(file) or f"exit code {code}"
        if "disk is full" in reason or shutil.disk_usage(file.parent).free < ROOM:
            raise RunError(reason if "disk is full" in reason else f"Expected disk space in {trials.folder}: it is full")
        if 0 <= code <= 128:
            break
        reason = f"killed {STARTS} times, perhaps for lack of memory; the last time with exit code {code}"
    trials.end(trial, TrialState.FAIL, reason=reason, **facts)
    return f"failed: {reason}"


def _train(
    trials: Trials, trial: FrozenTrial, log: BinaryIO, sweep: Sweep, signals: Signals, given: list[str]
) -> tuple[bool, int]:
    """Run ``fit`` with options until it exits, and return whether it was pruned, and its exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"}
    # its own session: Ctrl-C reaches only this process, which stops the trial
    process = subprocess.Popen(
        [sys.executable, "-m", "project.sweep.trial", "fit", *given],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
    )
    sent, pruned, reported = 0, False, max(len(trial.intermediate_values) - 1, 0)
    while process.poll() is None:
        time.sleep(INTERVAL)
        if sweep.plan.pruning is not None and not pruned and (run := run_of(trials.log(trial.number))) is not None:
            for value in validations(run, sweep.metric)[reported:]:
                reported += 1
                pruned = pruned or trials.report(trial, reported, value)
        while sent < signals.count + pruned:
            process.terminate()
            sent += 1
    return pruned, process.returncode


def run_of(log: Path) -> Path | None:
    """Return the run directory that the output of a trial names first; None if none was trained."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    runs = map(Path, re.findall(r"^Run: (.+)$", text, re.MULTILINE))
    return next((run for run in runs if (run / CONFIG).is_file()), None)


def last_error(log: Path) -> str:
    """Return the last error in the output of a trial, or "" if it printed none."""
    errors = re.findall(r"^error: (.+)$", log.read_text(errors="replace"), re.MULTILINE)
    return errors[-1] if errors else ""


def validations(run: Path, metric: str) -> list[float]:
    """Return the finite values of a metric in metrics.csv."""
    values = [row[metric] for row in read_metrics(run, (metric,)) if metric in row]
    return [value for value in values if math.isfinite(value)]


def score(value: float, metric: str) -> str:
    """Return a value as text: accuracies in percent."""
    return format_metric(value, metric.rpartition("/")[2])


def _best(trials: Trials, sweep: Sweep) -> str:
    """Return the best trial so far in words."""
    if not trials.study.get_trials(states=[TrialState.COMPLETE]):
        return ""
    best = trials.study.best_trial
    return f" (best: trial {best.number + 1}, {score(best.value or 0, sweep.metric)})"
