"""Run the trials of a sweep one after another, each as a process of ``fit``."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.trial import FrozenTrial, TrialState

from project.errors import RunError
from project.runs import record
from project.runs.config import CONFIG, short_names
from project.runs.metrics import format_metric, read_metrics
from project.runs.summary import shell_command
from project.sweep.plan import options_of, words
from project.sweep.study import Trials

STARTS = 3  # of a trial by one process: if it is killed each time, such as for lack of memory, it has failed
INTERVAL = 0.5  # seconds between looks at a trial
GRACE = 10.0  # seconds that a trial needs to stop after its step if its worker was killed
FULL = "No space left|quota exceeded|File too large"  # of messages
ROOM = 2**20  # bytes; with less, a trial has failed because the disk is full


def work(trials: Trials) -> int:
    """Run trials until all are finished or run by other processes; return the signal that stopped this one, or 0.

    Raises:
        RunError: The disk is full.
    """
    names, deadline = short_names(trials.plan.swept), time.monotonic() + GRACE
    with count_signals() as signals:
        while not signals:
            if (taken := trials.take()) is None:
                if not trials.having(TrialState.RUNNING) or time.monotonic() > deadline:
                    break
                time.sleep(INTERVAL)
                continue
            trial, log = taken
            settings = ", ".join(f"{name} {words(trial.params[key])}" for key, name in names.items())
            print(f"Trial {trial.number + 1} of {trials.plan.trials}: {settings} ...", end=" ", flush=True)
            with log:
                print(run_trial(trials, trial, log, signals), flush=True)
            deadline = time.monotonic() + GRACE
    return signals[0] if signals else 0


def run_trial(trials: Trials, trial: FrozenTrial, log: BinaryIO, signals: list[int]) -> str:
    """Start or continue a trial, record its end, and return it in words."""
    metric, file = trials.sweep.metric, trials.log(trial)
    for _ in range(STARTS):
        run, code, begin = run_of(file), 0, 0
        if run is None or record.state_of(run) != "finished":  # a finished one only lacks its record
            given = ["--run", str(run)] if run is not None else [*trials.sweep.args, *options_of(trial.params)]
            begin = file.stat().st_size
            pruned, code = _train(trials, trial, log, signals, ["fit", *given])
            if pruned:
                return f"stopped early{_best(trials)}"
            run = run_of(file)
        facts: dict[str, Any] = {} if run is None else {"run": str(run), "minutes": record.seconds(run) / 60}
        if run is not None and record.state_of(run) == "finished":
            if values := validations(run, metric):
                value = (max if trials.sweep.mode == "max" else min)(values)
                trials.end(trial, TrialState.COMPLETE, value, **facts)
                return f"{metric} {score(value, metric)}{_best(trials)}"
            reason = f"no finite value of {metric} in {run}"
            break
        if signals:
            return "interrupted"
        reason = last_error(file, begin) or f"exit code {code}"
        if re.search(FULL, reason) or shutil.disk_usage(file.parent).free < ROOM:
            print("stopped", flush=True)
            resume = shell_command("project", "sweep", "--sweep_dir", trials.folder)
            raise RunError(f"Expected disk space for {trials.folder}. Free some and resume:  {resume}")
        if 0 <= code <= 128:
            break
        reason = f"killed {STARTS} times, perhaps for lack of memory; its last exit code is {code}"
    trials.end(trial, TrialState.FAIL, reason=reason, **facts)
    return f"failed: {reason}"


def _train(trials: Trials, trial: FrozenTrial, log: BinaryIO, signals: list[int], args: list[str]) -> tuple[bool, int]:
    """Run a command until it exits, and return whether it was pruned, and its exit code."""
    process = start(args, log)
    sent, pruned, reported = 0, False, max(len(trial.intermediate_values) - 1, 0)
    while (code := process.poll()) is None:
        time.sleep(INTERVAL)
        run = run_of(trials.log(trial)) if trials.plan.pruning is not None else None
        for value in validations(run, trials.sweep.metric)[reported:] if run is not None and not pruned else []:
            reported += 1
            if pruned := trials.report(trial, reported, value):
                trials.end(trial, TrialState.PRUNED, run=str(run))
                break
        while sent < len(signals) + pruned:
            process.terminate()
            sent += 1
    return pruned, code


def start(args: list[str], log: BinaryIO) -> "subprocess.Popen[bytes]":
    """Start a command in its own session: Ctrl-C reaches only this process, which stops the trial."""
    return subprocess.Popen(
        [sys.executable, "-m", "project.sweep.trial", *args],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={name: value for name, value in os.environ.items() if name != "PL_GLOBAL_SEED"},
        start_new_session=True,
    )


@contextmanager
def count_signals() -> Iterator[list[int]]:
    """Yield a list to which signals are added instead of ending this process; ignored ones stay ignored."""
    received: list[int] = []
    known = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
    numbers = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_of(log: Path) -> Path | None:
    """Return the run directory that the output of a trial names first; None if none was trained."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    runs = map(Path, re.findall(r"^Run: (.+)$", text, re.MULTILINE))
    return next((run for run in runs if (run / CONFIG).is_file()), None)


def last_error(log: Path, begin: int = 0) -> str:
    """Return the last error in the output of a trial from a byte on, or "" if it printed none."""
    text = log.read_bytes()[begin:].decode(errors="replace")
    return (re.findall(r"^error: (.+)$", text, re.MULTILINE) or [""])[-1]


def validations(run: Path, metric: str) -> list[float]:
    """Return the finite values of a metric in metrics.csv."""
    values = [row[metric] for row in read_metrics(run, (metric,)) if metric in row]
    return [value for value in values if math.isfinite(value)]


def score(value: float, metric: str) -> str:
    """Return a value as text: accuracies in percent."""
    return format_metric(value, metric.rpartition("/")[2])


def _best(trials: Trials) -> str:
    """Return the best trial so far in words."""
    if not trials.having(TrialState.COMPLETE):
        return ""
    best = trials.study.best_trial
    return f" (best: trial {best.number + 1}, {score(best.value or 0.0, trials.sweep.metric)})"
