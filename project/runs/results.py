"""What came out of all runs: one result a run, and one for runs that differ in their seed alone. No torch in here."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

from project.errors import RunError
from project.runs import record
from project.runs.config import BEST, CONFIG, EXPECTED, flatten, load_config, setting
from project.runs.folders import by_start, tests_of, times_tested
from project.runs.metrics import (
    METRICS,
    PER_EPOCH,
    age_in_words,
    best_of,
    in_words,
    measurement,
    moment_of,
    monitor_of,
    read_metrics,
    shown,
)
from project.runs.record import ENVIRONMENT

OUTPUTS = ("test", "validate", "predict")  # below a run


@dataclass
class Result:
    """What the files of a run say. None or "" is what they do not.

    Attributes:
        name: Its folder, below that of all runs.
        config: Name of its configs.
        state: See ``project.runs.record.state_of``.
        started: In UTC, as ISO 8601.
        minutes: Of all its starts together.
        data: Class of its data.
        root: Folder of its data.
        digest: Of its data.
        epochs: How many it finished, of those planned.
        metric: What ``val`` and ``test`` are: "acc", or "loss" of a run without accuracy.
        val: The validation of the best checkpoint, at the end of ``val_epoch``, from 1.
        test: The latest test of its best checkpoint on all images of its data, or else its latest test. None if
            best.ckpt is newer than that.
        tests: How often it was tested, to whatever logger.
        test_weights: The checkpoint that was tested.
        test_epoch: Epoch of that checkpoint, from 1.
        test_limit: Number or share of the batches; None if all.
        test_data: Root and digest of the data, if it is not the run's.
        test_note: How the test differs from one of the best checkpoint on all images of the run's data; None if it does
            not.
        changed: Whether it went on with other settings than it was started with.
    """

    name: str
    config: str
    state: str = ""
    started: str | None = None
    minutes: float | None = None
    data: str | None = None
    root: str | None = None
    digest: str | None = None
    seed: int | None = None
    epochs: int | None = None
    planned_epochs: int | None = None
    metric: str | None = None
    val: float | None = None
    val_epoch: int | None = None
    test: float | None = None
    tests: int = 0
    test_weights: str | None = None
    test_epoch: int | None = None
    test_limit: float | None = None
    test_data: str | None = None
    test_note: str | None = None
    changed: bool = False
    settings: str = field(default="", repr=False)  # those that repeats of the run share
    circumstances: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_finished(self) -> bool:
        """Tell whether it ended as planned; of a run without run.json, by its epochs."""
        return self.state == "finished" or (
            not self.state and self.epochs is not None and self.epochs == self.planned_epochs
        )


@dataclass
class Repeats:
    """Mean and sample standard deviation (n - 1) over runs that differ in their seed alone.

    Attributes:
        name: The latest run among them.
        n: Number of runs, finished and each of another seed.
        test_n: How many of them were tested, with their own best checkpoint on all images.
        left_out: What of the same settings does not count: unfinished or changed runs, earlier of a seed, other tests.
        differ: What else than the seed was not the same: "git", "versions", "hardware".
    """

    name: str
    config: str
    data: str | None
    root: str | None
    digest: str | None
    metric: str | None
    n: int
    seeds: list[int | None]
    val_mean: float
    val_std: float
    test_n: int
    test_mean: float | None
    test_std: float | None
    minutes_mean: float | None
    left_out: list[str]
    differ: list[str]


def read_results(runs_dir: Path) -> tuple[list[Result], list[str]]:
    """Return the results of all runs, in the order of their start, and what could not be read of them."""
    results, problems = [], []
    for run in sorted(filter(_is_run, runs_dir.glob("*/*")), key=by_start):
        result = Result(f"{run.parent.name}/{run.name}", run.parent.name)
        for read in (_read_record, _read_config, _read_metrics, _read_tests):
            try:
                read(run, result)
            except (RunError, OSError) as error:
                problems.append(str(error))
            except (TypeError, ValueError) as error:  # of values that another hand wrote
                problems.append(f"Expected {run} as `fit` leaves it, but got {type(error).__name__}: {error}.")
        results.append(result)
    return results, problems


def repeats(results: Sequence[Result]) -> list[Repeats]:
    """Return a summary of each setting that two or more seeds finished.

    Data are the same if their digests are, or their folders where run.json does not tell.
    """
    groups: dict[tuple[str, str | None], list[Result]] = {}
    for result in results:
        if result.settings:
            groups.setdefault((result.settings, result.digest or result.root), []).append(result)
    return [_summarise(group) for group in groups.values() if len(_counted(group)) > 1]


def _counted(group: list[Result]) -> list[Result]:
    """Return the latest finished run of each seed; runs that were not seeded are all different."""
    finished = [one for one in group if one.is_finished and one.val is not None and not one.changed]
    return list({one.name if one.seed is None else one.seed: one for one in finished}.values())


def _summarise(group: list[Result]) -> Repeats:
    counted = _counted(group)
    last = max(counted, key=group.index)
    tests = [one.test for one in counted if one.test is not None and one.test_note is None]
    minutes = [one.minutes for one in counted if one.minutes is not None]
    left_out = Counter(map(_why_not, group))
    left_out["of the same seed"] -= len(counted)
    left_out["tested otherwise"] = sum(one.test is not None for one in counted) - len(tests)
    left_out["tested before best.ckpt"] = sum(one.test is None and one.test_note is not None for one in counted)
    values = [one.val for one in counted if one.val is not None]
    return Repeats(
        *(last.name, last.config, last.data, last.root, last.digest, last.metric),
        n=len(counted),
        seeds=[one.seed for one in counted],
        val_mean=mean(values),
        val_std=stdev(values),
        test_n=len(tests),
        test_mean=mean(tests) if tests else None,
        test_std=stdev(tests) if len(tests) > 1 else None,
        minutes_mean=mean(minutes) if len(minutes) == len(counted) else None,
        left_out=[f"{number} {what}" for what, number in left_out.items() if number],
        differ=[name for name in ENVIRONMENT if len({one.circumstances.get(name) for one in counted}) > 1],
    )


def _why_not(result: Result) -> str:
    if not result.is_finished:
        return result.state or "unfinished"
    if result.changed:
        return "changed on the way"
    return "without validation" if result.val is None else "of the same seed"


def _is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's, be it only begun; not if it holds tests of weights that are no run's."""
    if (folder / CONFIG).is_file() or (folder / record.FILE).is_file():
        return True
    return folder.is_dir() and _time_of(folder) is not None and not any((folder / one).is_dir() for one in OUTPUTS)


def _time_of(run: Path) -> str | None:
    """Return when a run was started by its name, in UTC."""
    try:
        return datetime.strptime(run.name[:19], "%Y-%m-%d_%H-%M-%S").astimezone(UTC).isoformat()
    except ValueError:  # renamed
        return None


def _read_record(run: Path, result: Result) -> None:
    found = record.read(run)
    result.state = record.state_of(run)
    result.started = _time_of(run)
    if "started" in found:
        result.started = datetime.fromisoformat(found["started"]).isoformat()
    result.minutes = record.seconds(run) / 60 or None  # 0 before the first checkpoint
    result.digest = setting(found, "data.digest")
    starts = [found, *found.get("resumed", [])]  # a later one tells what differs from the first
    for name in ENVIRONMENT:
        told = [json.dumps(one[name], sort_keys=True) for one in starts if name in one]
        result.circumstances[name] = "\n".join(dict.fromkeys(told))


def _read_config(run: Path, result: Result) -> None:
    if not (run / CONFIG).is_file():
        raise RunError(f"Expected {run / CONFIG}, but it does not exist: the run ended as it began, or was damaged.")
    config = load_config(run)
    result.data, result.root = setting(config, "data.class_path"), setting(config, "data.init_args.root")
    seed, epochs = config.get("seed_everything"), setting(config, "trainer.max_epochs")
    result.seed = None if seed is False else seed
    result.planned_epochs = None if epochs == -1 else epochs
    result.changed = (run / "before").is_dir()  # the configs of its earlier starts
    if config:
        result.settings = repr([(key, value) for key, value in flatten(config) if key not in EXPECTED])


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
    found = list(filter(None, map(measurement, tests_of(run))))
    if not (fitting := [one for one in found if result.metric in (None, one.metric)]):
        return
    metric, value, under = fitting[-1]
    result.metric = metric
    if under.is_old:
        result.test_note = f"{age_in_words(under)} ({shown(value, metric)} is the older one's)"
        return
    result.test, result.test_note = value, None if under.is_usual else f"tested by {in_words(under)}"
    result.test_weights, result.test_epoch, result.test_limit = under.weights, under.epoch, under.limit
    result.test_data = under.other_data or None
