"""Mean and standard deviation over runs that differ only in seed or fold. Imports no torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from project.runs.config import EXPECTED, flatten
from project.runs.folders import all_runs
from project.runs.record import ENVIRONMENT
from project.runs.results import Result, read_result


@dataclass
class Repeats:
    """Mean and sample standard deviation (n - 1) over runs that differ only in seed or fold."""

    name: str  # the latest of the runs
    data: str | None
    root: str | None
    digest: str | None
    metric: str | None
    n: int  # number of finished runs, one per seed and fold
    seeds: list[int | None]
    folds: list[int | None]
    val_mean: float
    val_std: float
    test_n: int  # number of these runs with a test of the best checkpoint on all images
    test_mean: float | None
    test_std: float | None
    minutes_mean: float | None
    # excluded: unfinished or changed runs with these settings, earlier runs of a seed and fold, other tests
    left_out: list[str]
    differ: list[str]  # what differs besides the seed: "git", "versions", "hardware"


def read_results(runs_dir: Path) -> tuple[list[Result], list[str]]:
    """Return the results of all runs, in the order of their start, and messages about files that cannot be read."""
    pairs = [read_result(run) for run in all_runs(runs_dir)]
    return [result for result, _ in pairs], [problem for _, problems in pairs for problem in problems]


def repeats(results: Sequence[Result]) -> list[Repeats]:
    """Return a summary of all settings that have finished runs with two or more seeds or folds.

    Data is the same if its digest is, or its directory for folds, and if run.json has no digest.
    """
    groups: dict[tuple[str, str | None], list[Result]] = {}
    for result in filter(lambda result: result.settings, results):
        others = [(key, value) for key, value in flatten(result.settings) if not key.startswith("trainer.logger")]
        settings = repr([(key, value) for key, value in others if key not in EXPECTED])
        digest = result.digest if result.fold is None else None
        groups.setdefault((settings, digest or result.root), []).append(result)
    return [_summary(group) for group in groups.values() if len(_included(group)) > 1]


def _included(group: list[Result]) -> list[Result]:
    """Return the latest finished run of each seed and fold; runs without a seed count separately."""
    finished = [result for result in group if not _exclusion(result)]
    keys = [(result.name if result.seed is None else result.seed, result.fold) for result in finished]
    return list(dict(zip(keys, finished, strict=True)).values())


def _exclusion(result: Result) -> str:
    """Return why a run is excluded, apart from a later run of its seed and fold, or ""."""
    if result.state != "finished":
        return result.state or "unfinished"
    if result.changed:
        return "resumed with other settings"
    return "without validation" if result.val is None else ""


def _summary(group: list[Result]) -> Repeats:
    included = _included(group)
    last = max(included, key=group.index)
    values = [result.val for result in included if result.val is not None]
    tests = [result.test for result in included if result.test is not None and result.test_note is None]
    minutes = [result.minutes for result in included if result.minutes is not None]
    left_out = Counter(_exclusion(result) or "of the same seed" for result in group)
    left_out["of the same seed"] -= len(included)
    left_out["tested with other images or weights"] = sum(result.test_note is not None for result in included)
    return Repeats(
        *(last.name, last.data, last.root, last.digest, last.metric),
        n=len(included),
        seeds=[result.seed for result in included],
        folds=[result.fold for result in included],
        val_mean=mean(values),
        val_std=stdev(values),
        test_n=len(tests),
        test_mean=mean(tests) if tests else None,
        test_std=stdev(tests) if len(tests) > 1 else None,
        minutes_mean=mean(minutes) if len(minutes) == len(included) else None,
        left_out=[f"{number} {what}" for what, number in left_out.items() if number],
        differ=[name for name in ENVIRONMENT if len({result.environment.get(name) for result in included}) > 1],
    )
