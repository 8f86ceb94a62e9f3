"""The results of a sweep: tables, and a page with parallel coordinates and importance."""

import math
import os
import warnings
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from optuna.trial import FrozenTrial, TrialState

from atomic_files import write_atomically
from project.runs.config import short_names
from project.runs.results import read_result
from project.sweep.plan import REPEATS, words
from project.sweep.study import Trials
from project.sweep.worker import score

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}
WIDTH, TOP, BOTTOM, SIDE = 900, 40, 300, 60  # of the parallel coordinates, in CSS pixels
MOST_TICKS = 8
Table = tuple[list[str], list[list[str]]]  # header and rows


def ranked(trials: Trials) -> list[FrozenTrial]:
    """Return the finished trials, the best first."""
    is_max = trials.sweep.mode == "max"
    return sorted(trials.having(TrialState.COMPLETE), key=lambda trial: trial.value or 0.0, reverse=is_max)


def trial_table(trials: Trials) -> Table:
    """Return a row for each trial."""
    names, rows = short_names(trials.plan.swept), []
    for trial in [*ranked(trials), *trials.having(TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)]:
        facts = trial.user_attrs
        reason = f": {facts['reason']}" if "reason" in facts else ""
        values = ["" if trial.value is None else score(trial.value, trials.sweep.metric)]
        values += [
            f"{facts['minutes']:.1f}" if "minutes" in facts else "",
            STATES.get(trial.state, "unfinished") + reason,
        ]
        settings = [words(trial.params[key]) for key in names]
        rows.append([str(trial.number + 1), *settings, *values, facts.get("run", "")])
    return ["trial", *names.values(), trials.sweep.metric, "minutes", "state", "run"], rows


def mean_table(trials: Trials) -> Table | None:
    """Return mean ± sample std over the trials that differ only in seed or fold; None if these are not swept.

    Results of tests are included if all these trials were tested; nothing is selected by them.
    """
    keys = [key for key in trials.plan.swept if key not in REPEATS]
    groups: dict[tuple[Any, ...], list[FrozenTrial]] = {}
    for trial in ranked(trials):
        groups.setdefault(tuple(trial.params[key] for key in keys), []).append(trial)
    if len(keys) == len(trials.plan.swept) or not groups:
        return None
    rows = []
    for point, group in groups.items():
        runs = [read_result(Path(trial.user_attrs["run"]))[0] for trial in group]
        tests = [run.test for run in runs if run.test is not None and run.test_note is None]
        values = [trial.value for trial in group if trial.value is not None]
        metric = runs[0].metric or "loss"
        cells = [_mean_text(values, trials.sweep.metric), _mean_text(tests, metric) if len(tests) == len(group) else ""]
        rows.append([*map(words, point), str(len(group)), *cells])
    return [*(short_names(keys)[key] for key in keys), "n", trials.sweep.metric, f"test {metric}"], rows


def _mean_text(values: list[float], metric: str) -> str:
    return score(mean(values), metric) + (f" ± {score(stdev(values), metric)}" if len(values) > 1 else "")


def first_reason(trials: Trials) -> str | None:
    """Return why the first trial failed if all did; None otherwise."""
    every = trials.study.trials
    return every[0].user_attrs["reason"] if {trial.state for trial in every} == {TrialState.FAIL} else None


def importance(trials: Trials) -> dict[str, float]:
    """Return the share of each option in the variance of the metric; {} if Optuna cannot estimate it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            settings = [key for key in trials.plan.swept if key not in REPEATS]
            shares = optuna.importance.get_param_importances(trials.study, params=settings)
    except (ValueError, RuntimeError):  # such as for a single trial
        return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def write_page(trials: Trials) -> Path:
    """Write a page that needs no other files, and return its path."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    axes, lines = coordinates(trials)
    page = templates.get_template("page.html").render(
        title=f"Sweep {trials.folder.parent.name}/{trials.folder.name}",
        sweep=trials.sweep,
        axes=axes,
        lines=lines,
        importance=importance(trials),
        tables=[table for table in (mean_table(trials), trial_table(trials)) if table is not None],
        size=(WIDTH, TOP, BOTTOM),
    )
    file = trials.folder / "sweep.html"
    with write_atomically(file, suffix=f".{os.getpid()}.partial") as partial:
        partial.write_text(page, encoding="utf-8")
    return file


def coordinates(trials: Trials) -> tuple[list[Any], list[Any]]:
    """Return axes (x, title, ticks) and lines (path, rank from 0 for the best to 1, description) of finished trials."""
    finished = ranked(trials)
    columns = {name: [trial.params[key] for trial in finished] for key, name in short_names(trials.plan.swept).items()}
    columns[trials.sweep.metric] = [trial.value for trial in finished]
    axes, paths = [], [""] * len(finished)
    for i, (name, values) in enumerate(columns.items() if finished else ()):
        x = SIDE + i * (WIDTH - 2 * SIDE) / max(len(columns) - 1, 1)
        y = dict(zip(values, _heights(values, name != trials.sweep.metric), strict=True))
        shown = list(y) if len(y) <= MOST_TICKS else [min(y, key=lambda v: y[v]), max(y, key=lambda v: y[v])]
        axes.append((x, name, [(y[v], score(v, name) if name == trials.sweep.metric else words(v)) for v in shown]))
        paths = [f"{path}{'L' if path else 'M'}{x:.1f} {y[v]:.1f}" for path, v in zip(paths, values, strict=True)]
    titles = [f"Trial {trial.number + 1}: " for trial in finished]
    for name, values in columns.items():
        titles = [f"{title}{name} {words(value)}; " for title, value in zip(titles, values, strict=True)]
    ranks = [i / max(len(finished) - 1, 1) for i in range(len(finished))]
    return axes, list(zip(paths, ranks, titles, strict=True))[::-1]  # the best is drawn last


def _heights(values: list[Any], may_be_log: bool) -> list[float]:
    """Return the place of each value on its axis; others than numbers are spaced evenly."""
    numbers = values if all(type(value) in (int, float) for value in values) else []
    if not numbers:
        known = sorted(set(map(str, values)))
        numbers = [known.index(str(value)) for value in values]
    elif may_be_log and min(numbers) > 0 and max(numbers) >= 20 * min(numbers):
        numbers = [math.log(value) for value in numbers]
    low, high = min(numbers), max(numbers)
    return [BOTTOM - (0.5 if low == high else (v - low) / (high - low)) * (BOTTOM - TOP) for v in numbers]
