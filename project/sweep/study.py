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

FILE, JOURNAL, NAME = "sweep.json", "journal.log", "sweep"
DIGITS = 4  # of a random float

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Sweep(NamedTuple):
    """What all processes of a sweep share: content of ``sweep.json``.

    Attributes:
        plan: Content of the sweep file.
        args: Options of ``fit`` of all trials.
        metric: Metric to optimise.
        mode: "min" or "max".
        working_directory: Directory that paths are relative to.
    """

    plan: Plan
    args: list[str]
    metric: str
    mode: str
    working_directory: str


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write ``sweep.json``."""
    with write_atomically(folder / FILE, durable=True) as partial:
        partial.write_text(json.dumps({**sweep._asdict(), "plan": sweep.plan._asdict()}, indent=2) + "\n")


def read_sweep(folder: Path) -> Sweep:
    """Return the content of ``sweep.json``.

    Raises:
        RunError: The sweep was started in another working directory.
    """
    content = json.loads((folder / FILE).read_text())
    sweep = Sweep(**content | {"plan": Plan(**content["plan"])})
    if sweep.working_directory != str(Path.cwd()):
        raise RunError(f"Expected {sweep.working_directory} as working directory, in which {folder} was started.")
    return sweep


def lock(file: Path, wait: bool = False) -> BinaryIO | None:
    """Open a file for appending and lock it until it is closed, here and in child processes that inherit it.

    Returns:
        The file; None if another process holds the lock, and ``wait`` is false.

    Raises:
        OSError: The file cannot be opened, or its file system has no locks.
    """
    stream = file.open("ab", buffering=0)
    try:
        if lock_descriptor(stream.fileno(), blocking=wait):
            return stream
    except BaseException:
        stream.close()
        raise
    stream.close()
    return None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a file."""
    stream = lock(file, wait=True)
    try:
        yield
    finally:
        if stream is not None:
            stream.close()


class JournalLock(BaseJournalFileLock):
    """Lock of a journal that is released when its process exits; Optuna's own ones outlive it for 30 s.

    A line that a killed process has not completed is removed, because Optuna could not read the journal after it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._stream: BinaryIO | None = None

    def acquire(self) -> bool:
        self._stream = lock(self._journal.with_suffix(".lock"), wait=True)
        content = self._journal.read_bytes()
        if (complete := content.rfind(b"\n") + 1) < len(content):
            os.truncate(self._journal, complete)
        return True

    def release(self) -> None:
        if self._stream is not None:
            self._stream.close()


class Trials:
    """The trials of a sweep.

    Args:
        folder: Directory of the sweep.
        sweep: Its content.
    """

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        self.folder, self.plan = folder, sweep.plan
        self.distributions = {key: _distribution(values) for key, values in sweep.plan.parameters.items()}
        (folder / "trials").mkdir(exist_ok=True)
        journal = folder / JOURNAL
        self._storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal), JournalLock(journal)))
        self._direction = "maximize" if sweep.mode == "max" else "minimize"
        with locked(folder / ".lock"):
            self.study = optuna.create_study(
                storage=self._storage, study_name=NAME, direction=self._direction, load_if_exists=True
            )

    def log(self, number: int) -> Path:
        """Return the output of a trial; the process that runs the trial locks it."""
        return self.folder / "trials" / f"{number:03d}.log"

    def take(self) -> tuple[FrozenTrial, BinaryIO] | None:
        """Return a trial that no process runs, with its locked log: one that was killed, or else a new one.

        Returns:
            None if all trials are finished, or run by other processes.
        """
        with locked(self.folder / ".lock"):
            for trial in self.unfinished():
                if (log := lock(self.log(trial.number))) is not None:
                    if not self.study.trials[trial.number].state.is_finished():  # since the first look
                        return trial, log
                    log.close()
            number = len(self.study.trials)
            if number == self.plan.trials:
                return None
            parameters = self._choose(number)
            new = optuna.create_trial(
                state=TrialState.RUNNING, params=parameters, distributions=self.distributions
            )
            self.study.add_trial(new)
            log = lock(self.log(number), wait=True)
            return (self.study.trials[number], log) if log is not None else None

    def unfinished(self) -> list[FrozenTrial]:
        """Return the trials that are running, or were killed."""
        return self.study.get_trials(states=[TrialState.RUNNING])

    def _choose(self, number: int) -> dict[str, Any]:
        """Return the parameters of a new trial: a function of the plan and its number, for tpe also of the results."""
        if self.plan.method == "grid":
            return grid_point(self.plan, number)
        seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        tpe = self.plan.method == "tpe"
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True) if tpe else optuna.samplers.RandomSampler(seed)
        copy = optuna.create_study(direction=self._direction, sampler=sampler)  # a kill leaves no half of a trial
        copy.add_trials(self.study.trials)
        chosen = copy.ask(self.distributions).params
        for key, values in self.plan.parameters.items():
            if isinstance(chosen[key], float) and isinstance(values, dict):
                chosen[key] = min(max(float(f"{chosen[key]:.{DIGITS}g}"), values["low"]), values["high"])
        return chosen

    def report(self, trial: FrozenTrial, step: int, value: float) -> bool:
        """Record the value of a validation, counted from 1; return whether the trial is to be stopped."""
        self._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        pruner = optuna.pruners.SuccessiveHalvingPruner(**self.plan.pruning or {})
        return pruner.prune(self.study, self._storage.get_trial(trial._trial_id))

    def end(self, trial: FrozenTrial, state: TrialState, value: float | None = None, **facts: str | float) -> None:
        """Record the end of a trial, and facts about it."""
        for name, fact in facts.items():
            self._storage.set_trial_user_attr(trial._trial_id, name, fact)
        self.study.tell(trial.number, value, state)


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, list):
        return CategoricalDistribution(values)
    is_int = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (IntDistribution if is_int else FloatDistribution)(**values)
