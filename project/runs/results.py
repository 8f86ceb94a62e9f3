"""Collect the results of all runs, and mean and std over runs that differ only in their seed. Imports no torch."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from statistics import mean, stdev

from project.errors import RunError
from project.runs import record
from project.runs.config import BEST, CONFIG, EXPECTED, PREVIOUS_CONFIGS, flatten, load_config, setting
from project.runs.folders import all_runs, started_at, tests_of, times_tested
from project.runs.metrics import (
    METRICS,
    PER_EPOCH,
    age_text,
    best_of,
    format_metric,
    measurement,
    moment_of,
    monitor_of,
    read_metrics,
    setup_text,
)
from project.runs.record import ENVIRONMENT


@dataclass
class Result:
    """Results and settings of a run, from its files. Unknown values are None or ""."""

    name: str  # run directory, relative to runs_dir
    config: str  # name of the configs
    state: str = ""  # see project.runs.record.state_of
    started: str | None = None  # start in UTC, as ISO 8601
    minutes: float | None = None  # training time, summed over all starts
    data: str | None = None  # class path of the DataModule
    root: str | None = None  # directory of the data
    digest: str | None = None  # of the data
    seed: int | None = None
    epochs: int | None = None  # finished
    planned_epochs: int | None = None  # trainer.max_epochs
    metric: str | None = None  # of val and test: "acc", or "loss" for a run without accuracy
    val: float | None = None  # validation of the best checkpoint
    val_epoch: int | None = None  # of that validation, from 1
    # the latest test of the best checkpoint on all images of the data, or else the latest test; None if best.ckpt is
    # newer than the test
    test: float | None = None
    tests: int = 0  # number of tests
    test_weights: str | None = None  # the checkpoint that was tested
    test_epoch: int | None = None  # epoch of that checkpoint, from 1
    test_limit: float | None = None  # number or share of the batches; None if all
    test_data: str | None = None  # root and digest of the data, if it differs from the run's
    test_note: str | None = None  # how the test differs from one of the best checkpoint on all images of the run's data
    changed: bool = False  # whether the run was resumed with other settings
    settings: str = field(default="", repr=False)  # settings that repeats of the run share
    circumstances: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_finished(self) -> bool:
        """Return whether the run is finished; without run.json, whether all epochs are."""
        return self.state == "finished" or (
            not self.state and self.epochs is not None and self.epochs == self.planned_epochs
        )


@dataclass
class Repeats:
    """Mean and sample standard deviation (n - 1) over runs that differ only in their seed."""

    name: str  # the latest of the runs
    config: str
    data: str | None
    root: str | None
    digest: str | None
    metric: str | None
    n: int  # number of finished runs, one per seed
    seeds: list[int | None]
    val_mean: float
    val_std: float
    test_n: int  # number of these runs with a test of the best checkpoint on all images
    test_mean: float | None
    test_std: float | None
    minutes_mean: float | None
    # excluded: unfinished or changed runs with these settings, earlier runs of a seed, other tests
    left_out: list[str]
    differ: list[str]  # what differs besides the seed: "git", "versions", "hardware"


def read_results(runs_dir: Path) -> tuple[list[Result], list[str]]:
    """Return the results of all runs, in the order of their start, and messages about files that cannot be read."""
    results, problems = [], []
    for run in all_runs(runs_dir):
        result, of_run = read_result(run)
        results.append(result)
        problems += of_run
    return results, problems


def read_result(run: Path) -> tuple[Result, list[str]]:
    """Return the results of a run, and messages about files that cannot be read."""
    result, problems = Result(f"{run.absolute().parent.name}/{run.absolute().name}", run.absolute().parent.name), []
    for read in (_read_record, _read_config, _read_metrics, _read_tests):
        try:
            read(run, result)
        except (RunError, OSError) as error:
            problems.append(str(error))
        except (TypeError, ValueError) as error:  # values that were edited
            problems.append(
                f"Expected the files of {run} as `fit` wrote them, but got {type(error).__name__}: {error}."
            )
    return result, problems


def repeats(results: Sequence[Result]) -> list[Repeats]:
    """Return a summary of all settings that have finished runs with two or more seeds.

    Data is the same if its digest is, or its directory if run.json has no digest.
    """
    groups: dict[tuple[str, str | None], list[Result]] = {}
    for result in results:
        if result.settings:
            groups.setdefault((result.settings, result.digest or result.root), []).append(result)
    return [_summary(group) for group in groups.values() if len(_included(group)) > 1]


def _included(group: list[Result]) -> list[Result]:
    """Return the latest finished run of each seed; runs without a seed count separately."""
    finished = [result for result in group if result.is_finished and result.val is not None and not result.changed]
    return list({result.name if result.seed is None else result.seed: result for result in finished}.values())


def _summary(group: list[Result]) -> Repeats:
    included = _included(group)
    last = max(included, key=group.index)
    tests = [result.test for result in included if result.test is not None and result.test_note is None]
    minutes = [result.minutes for result in included if result.minutes is not None]
    left_out = Counter(map(_exclusion, group))
    left_out["of the same seed"] -= len(included)
    left_out["tested with other images or weights"] = sum(result.test is not None for result in included) - len(tests)
    left_out["tested before best.ckpt"] = sum(
        result.test is None and result.test_note is not None for result in included
    )
    values = [result.val for result in included if result.val is not None]
    return Repeats(
        *(last.name, last.config, last.data, last.root, last.digest, last.metric),
        n=len(included),
        seeds=[result.seed for result in included],
        val_mean=mean(values),
        val_std=stdev(values),
        test_n=len(tests),
        test_mean=mean(tests) if tests else None,
        test_std=stdev(tests) if len(tests) > 1 else None,
        minutes_mean=mean(minutes) if len(minutes) == len(included) else None,
        left_out=[f"{number} {what}" for what, number in left_out.items() if number],
        differ=[name for name in ENVIRONMENT if len({result.circumstances.get(name) for result in included}) > 1],
    )


def _exclusion(result: Result) -> str:
    if not result.is_finished:
        return result.state or "unfinished"
    if result.changed:
        return "resumed with other settings"
    return "without validation" if result.val is None else "of the same seed"


def _read_record(run: Path, result: Result) -> None:
    info = record.read(run)
    result.state = record.state_of(run)
    start = started_at(run)
    result.started = None if start is None else start.astimezone(UTC).isoformat()
    result.minutes = record.seconds(run) / 60 or None  # 0 before the first checkpoint
    result.digest = setting(info, "data.digest")
    starts = [info, *info.get("resumed", [])]  # later starts hold only what differs from the first
    for name in ENVIRONMENT:
        values = [json.dumps(start[name], sort_keys=True) for start in starts if name in start]
        result.circumstances[name] = "\n".join(dict.fromkeys(values))


def _read_config(run: Path, result: Result) -> None:
    config = load_config(run)
    result.data, result.root = setting(config, "data.class_path"), setting(config, "data.init_args.root")
    seed, epochs = config.get("seed_everything"), setting(config, "trainer.max_epochs")
    result.seed = None if seed is False else seed
    result.planned_epochs = None if epochs == -1 else epochs
    result.changed = (run / PREVIOUS_CONFIGS).is_dir()
    if config:
        others = [(key, value) for key, value in flatten(config) if not key.startswith("trainer.logger")]  # trackers
        result.settings = repr([(key, value) for key, value in others if key not in EXPECTED])


def _read_metrics(run: Path, result: Result) -> None:
    monitor, mode = monitor_of(run)
    rows = read_metrics(run, (*PER_EPOCH, monitor))
    for tag in PER_EPOCH[::-1]:
        epochs = [row["epoch"] for row in rows if tag in row]
        result.epochs = int(max(epochs)) + 1 if epochs else result.epochs
    moment = moment_of(run / BEST)
    for metric in ("acc", "loss"):
        if best := best_of(rows, metric, monitor, mode, moment):
            result.metric, result.val, result.val_epoch = metric, best["val"], int(best["epoch"]) + 1
            return


def _read_tests(run: Path, result: Result) -> None:
    result.tests = times_tested(run)
    for file in run.glob(f"test/*/{METRICS}"):
        if not (file.parent / CONFIG).is_file():
            raise RunError(f"Expected {file.parent / CONFIG}, but it does not exist.")
    measurements = filter(None, map(measurement, tests_of(run)))
    if not (matching := [test for test in measurements if result.metric in (None, test.metric)]):
        return
    metric, value, setup = matching[-1]
    result.metric = metric
    if setup.is_old:
        result.test_note = f"{age_text(setup)} (older result: {format_metric(value, metric)})"
        return
    result.test, result.test_note = value, None if setup.is_usual else f"tested with {setup_text(setup)}"
    result.test_weights, result.test_epoch, result.test_limit = setup.weights, setup.epoch, setup.limit
    result.test_data = setup.other_data or None
