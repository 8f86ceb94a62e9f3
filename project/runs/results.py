"""Read the results of a run from its directory. Imports no torch."""

import json
import math
import re
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from project.errors import RunError
from project.runs import record
from project.runs.config import BEST, PREVIOUS_CONFIGS, RESULTS, load_config, setting
from project.runs.metrics import PER_EPOCH, digest_of, format_metric, read_metrics

STAGES = {"validate": "val", "test": "test"}  # command: stage
METRIC_NAMES = ("acc", "loss")  # of results: the first that a run has


@dataclass
class Result:
    """Results and settings of a run, from its files. Unknown values are None or ""."""

    name: str  # run directory, relative to runs_dir
    state: str = ""  # see project.runs.record.state_of
    started: str | None = None  # start in UTC, as ISO 8601
    minutes: float | None = None  # training time, summed over all starts
    data: str | None = None  # class path of the DataModule
    root: str | None = None  # directory of the data
    digest: str | None = None  # of the data
    seed: int | None = None
    fold: int | None = None  # None without folds
    epochs: int | None = None  # finished
    planned_epochs: int | None = None  # trainer.max_epochs
    metric: str | None = None  # of train, val and test: "acc", or "loss" for a run without accuracy
    train: float | None = None  # at the step of the best validation
    val: float | None = None  # validation with the best value of --checkpoint.monitor
    val_epoch: int | None = None  # of that validation, from 1
    # the latest test of the best checkpoint on all images of the data, or else the latest test; None if best.ckpt is
    # newer than the test
    test: float | None = None
    tests: int = 0  # number of tests
    test_epoch: int | None = None  # epoch of the tested checkpoint, from 1
    test_note: str | None = None  # how the test differs from one of the best checkpoint on all images of the run's data
    changed: bool = False  # whether the run was resumed with other settings
    settings: dict[str, Any] = field(default_factory=dict, repr=False)  # the config
    environment: dict[str, str] = field(default_factory=dict, repr=False)  # git, versions and hardware of all starts


class Evaluation(NamedTuple):
    """Result of a validation or test."""

    folder: Path
    metric: str  # "acc" or "loss"
    value: float
    epoch: int | None  # of the weights, from 1; None if unknown
    description: str  # the weights, and the images unless they are all of the run's data
    is_usual: bool  # whether it used the run's present best.ckpt, and all images of the run's data
    is_old: bool  # whether it used a best.ckpt that was replaced afterwards


def read_result(run: Path) -> tuple[Result, list[str]]:
    """Return the results of a run, and messages about files that cannot be read."""
    result, problems = Result("/".join(run.absolute().parts[-2:])), []
    for read in (_read_record, _read_config, _read_metrics, _read_tests):
        try:
            read(run, result)
        except (RunError, OSError) as error:
            problems.append(str(error))
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # damaged, or edited
            problems.append(
                f"Expected the files of {run} as `fit` wrote them, but got {type(error).__name__}: {error}."
            )
    return result, problems


def tests_of(run: Path) -> list[Evaluation]:
    """Return the finished tests of a run; the one to report is last.

    Tests of the present best checkpoint on all of the run's data come after others, and later tests after earlier ones.
    """
    tests = [test for folder in run.glob("test/*") if (test := read_evaluation(folder))]

    def order(test: Evaluation) -> tuple[bool, bool, list[int]]:
        return not test.is_old, test.is_usual, [int(number) for number in re.findall(r"\d+", test.folder.name)]

    return sorted(tests, key=order)


def read_evaluation(output: Path) -> Evaluation | None:
    """Return the result of a validation or test from its results.json; None if it has none.

    It belongs to the checkpoint with the recorded digest.

    Raises:
        RunError: The file is damaged.
    """
    file, run, stage = output / RESULTS, output.parents[1], STAGES[output.parent.name]
    if not file.is_file():  # the command is still running, or was killed
        return None
    try:
        results = json.loads(file.read_text())
        values = {metric: results["metrics"].get(f"{stage}/{metric}") for metric in METRIC_NAMES}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunError(f"Expected the results of `{output.parent.name}` in {file}, but got: {error}.") from error
    metric = next((metric for metric in METRIC_NAMES if values[metric] is not None), None)
    if metric is None:
        return None
    weights, epoch, limit = results["checkpoint"], results.get("epoch"), results.get("limit_batches")
    is_named_best = Path(weights).parts[-3:] == (run.name, *BEST.parts)
    is_best = is_named_best  # best.ckpt was removed
    if (run / BEST).is_file():
        is_best = results.get("checkpoint_digest") == digest_of(run / BEST)
    other_data = _other_data(run, results)
    description = weights if epoch is None else f"{weights} of epoch {epoch}"
    description += f", on other data than the run's: {other_data}" if other_data else ""
    description += "" if limit is None else f", on part of the images (limit_{stage}_batches {limit})"
    is_usual = is_best and not other_data and limit is None
    return Evaluation(output, metric, values[metric], epoch, description, is_usual, is_named_best and not is_best)


def _other_data(run: Path, results: dict[str, Any]) -> str:
    """Return root and digest of the data of a validation or test, or "" if it is the run's data, or unknown."""
    data, of_run = results.get("data") or {}, record.read(run).get("data") or {}
    root, digest = data.get("root", ""), data.get("digest")
    same = digest == of_run["digest"] if digest and of_run.get("digest") else root == of_run.get("root", root)
    return "" if same else f"{root} ({digest[:8]})" if digest else root


def _read_record(run: Path, result: Result) -> None:
    info = record.read(run)
    result.state, result.started = record.state_of(run), info.get("started")
    result.minutes = record.seconds(run) / 60 or None  # 0 before the first checkpoint
    result.digest = setting(info, "data.digest")
    starts = [info, *info.get("resumed", [])]  # later starts hold only what differs from the first
    for name in record.ENVIRONMENT:
        values = [json.dumps(start[name], sort_keys=True) for start in starts if name in start]
        result.environment[name] = "\n".join(dict.fromkeys(values))


def _read_config(run: Path, result: Result) -> None:
    result.settings = config = load_config(run)
    result.data, result.root = setting(config, "data.class_path"), setting(config, "data.init_args.root")
    seed, epochs = config.get("seed_everything"), setting(config, "trainer.max_epochs")
    result.seed = None if seed is False else seed
    if setting(config, "data.init_args.folds") is not None:
        result.fold = setting(config, "data.init_args.fold")
    result.planned_epochs = None if epochs == -1 else epochs
    result.changed = (run / PREVIOUS_CONFIGS).is_dir()


def _read_metrics(run: Path, result: Result) -> None:
    monitor, mode = (str(setting(result.settings, f"checkpoint.{key}")) for key in ("monitor", "mode"))
    steps: dict[tuple[float, float], dict[str, float]] = {}  # validation and training log the end of an epoch apart
    for row in read_metrics(run, (*PER_EPOCH, monitor)):
        steps.setdefault((row["epoch"], row["step"]), {}).update(row)
    epochs = {tag: [row["epoch"] for row in steps.values() if tag in row] for tag in PER_EPOCH}
    result.epochs = next((int(max(epochs[tag])) + 1 for tag in PER_EPOCH if epochs[tag]), None)
    for metric in METRIC_NAMES:
        if best := _best_validation(list(steps.values()), metric, monitor, mode):
            result.metric, result.train, result.val = metric, best.get(f"train/{metric}"), best[f"val/{metric}"]
            result.val_epoch = int(best["epoch"]) + 1
            return


def _best_validation(rows: list[dict[str, float]], metric: str, monitor: str, mode: str) -> dict[str, float] | None:
    """Return the row with the best value of ``monitor``, or else of ``val/<metric>``; NaN and Inf are ignored."""
    validations = [row for row in rows if math.isfinite(row.get(f"val/{metric}", math.nan))]
    if monitored := [row for row in validations if math.isfinite(row.get(monitor, math.nan))]:
        return (max if mode == "max" else min)(monitored, key=itemgetter(monitor))  # the first if equal
    return (max if metric == "acc" else min)(validations, key=itemgetter(f"val/{metric}"), default=None)


def _read_tests(run: Path, result: Result) -> None:
    tests = tests_of(run)
    result.tests = len(tests)
    if not tests or result.metric not in (None, tests[-1].metric):
        return
    _, result.metric, value, epoch, description, is_usual, is_old = tests[-1]
    if is_old:
        tested = "an unknown checkpoint" if epoch is None else f"epoch {epoch}"
        older = format_metric(value, result.metric)
        result.test_note = f"tested at {tested}; best.ckpt is newer (older result: {older})"
    else:
        result.test, result.test_epoch = value, epoch
        result.test_note = None if is_usual else f"tested with {description}"
