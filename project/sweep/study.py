"""The trials of a sweep, in a journal that any number of processes share."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import optuna
from filelock import lock_descriptor
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

from atomic_files import write_atomically
from project.errors import RunError
from project.sweep.plan import Plan, grid_point

FILE, LOCK = "sweep.json", ".lock"
DIGITS = 4  # of a random float

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Sweep(NamedTuple):
    """Content of ``sweep.json``: what all processes of a sweep share."""

    plan: Plan
    args: list[str]  # options of fit of all trials
    metric: str  # to optimise
    mode: str  # "min" or "max"
    working_directory: str  # that paths are relative to


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write ``sweep.json``."""
    with write_atomically(folder / FILE, durable=True) as partial:
        partial.write_text(json.dumps({**sweep._asdict(), "plan": sweep.plan._asdict()}, indent=2) + "\n")


def read_sweep(folder: Path) -> Sweep:
    """Return the content of ``sweep.json``.

    Raises:
        RunError: The sweep was started in another working directory.
    """
    try:
        content = json.loads((folder / FILE).read_text())
        sweep = Sweep(**content | {"plan": Plan(**content["plan"])})
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"Expected {folder / FILE} as `sweep` wrote it, but got: {error}.") from error
    if sweep.working_directory != str(Path.cwd()):
        raise RunError(f"Expected {sweep.working_directory} as working directory, in which {folder} was started.")
    return sweep


def lock(file: Path) -> BinaryIO | None:
    """Open and lock a file until it is closed, here and in processes that inherit it; None if it is locked already."""
    stream = file.open("ab", buffering=0)
    if lock_descriptor(stream.fileno(), blocking=False):
        return stream
    stream.close()
    return None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for the lock of a file, and hold it."""
    with file.open("ab") as stream:
        lock_descriptor(stream.fileno(), poll_interval=0.01)
        yield


class JournalLock(BaseJournalFileLock):
    """Lock of a journal that is released when its process exits; Optuna's own ones outlive it for 30 s.

    A line that a killed process has not completed is removed, because Optuna cannot read a journal with one.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def acquire(self) -> bool:
        self._lock = locked(self._journal.with_suffix(".lock"))
        self._lock.__enter__()
        content = self._journal.read_bytes()
        os.truncate(self._journal, content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.__exit__(None, None, None)


class Trials:
    """The trials of a sweep, whose directory is ``folder``."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self.folder, self.sweep, self.plan = folder, sweep, sweep.plan
        self._distributions = {key: _distribution(values) for key, values in sweep.plan.parameters.items()}
        (folder / "trials").mkdir(exist_ok=True)
        journal = folder / "journal.log"
        self._storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
        is_max = sweep.mode == "max"
        self._direction = optuna.study.StudyDirection.MAXIMIZE if is_max else optuna.study.StudyDirection.MINIMIZE
        with locked(folder / LOCK):
            self.study = optuna.create_study(
                storage=self._storage, study_name="sweep", direction=self._direction, load_if_exists=True
            )

    def having(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in some states; those that run, and those that were killed, are RUNNING."""
        return self.study.get_trials(states=states)

    def log(self, trial: FrozenTrial) -> Path:
        """Return the output of a trial; the process that runs the trial locks it."""
        return self.folder / "trials" / f"{trial.number:03d}.log"

    def take(self) -> tuple[FrozenTrial, BinaryIO] | None:
        """Return a trial that no process runs, with its locked log: one that was killed, or else a new one.

        It is None if all trials are finished, or run by other processes.
        """
        with locked(self.folder / LOCK):
            for trial in self.having(TrialState.RUNNING):
                if (log := lock(self.log(trial))) is not None:
                    if not self.study.trials[trial.number].state.is_finished():  # since the first look
                        return trial, log
                    log.close()
            number = len(self.study.trials)
            if number == self.plan.trials:
                return None
            self.study.add_trial(  # after a kill, it exists with all its parameters, or not at all
                optuna.create_trial(
                    state=TrialState.RUNNING, params=self._choose(number), distributions=self._distributions
                )
            )
            trial = self.study.trials[number]
            log = lock(self.log(trial))
            return None if log is None else (trial, log)

    def _choose(self, number: int) -> dict[str, Any]:
        """Return the parameters of a new trial: a function of plan and number, and for tpe of the results so far."""
        if self.plan.method == "grid":
            return grid_point(self.plan, number)
        seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)
        if self.plan.method == "tpe":
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        copy = optuna.create_study(direction=self._direction, sampler=sampler)
        copy.add_trials(self.study.trials)
        chosen = copy.ask(self._distributions).params
        for key, values in self.plan.parameters.items():
            if isinstance(chosen[key], float) and isinstance(values, dict):
                chosen[key] = min(max(float(f"{chosen[key]:.{DIGITS}g}"), values["low"]), values["high"])
        return chosen

    def report(self, trial: FrozenTrial, step: int, value: float) -> bool:
        """Record the value of a validation, counted from 1; return whether to stop the trial."""
        self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        pruner = optuna.pruners.SuccessiveHalvingPruner(**self.plan.pruning or {})
        return pruner.prune(self.study, self._storage.get_trial(trial._trial_id))

    def end(self, trial: FrozenTrial, state: TrialState, value: float | None = None, **facts: Any) -> None:
        """Record the end of a trial, and facts about it: "run", "minutes", "reason"."""
        for name, fact in facts.items():
            self._storage.set_trial_user_attr(trial._trial_id, name, fact)
        self.study.tell(trial.number, value, state)


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, list):
        return CategoricalDistribution(values)
    is_int = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (IntDistribution if is_int else FloatDistribution)(**values)
