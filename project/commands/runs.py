"""``runs``: list all runs, mean and std over seeds and folds, or the differences between two runs."""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from project.commands.light_parser import LightParser
from project.runs import record
from project.runs.config import EXPECTED, MISSING, differences, flatten, is_class, load_config, short_names
from project.runs.folders import find_run
from project.runs.metrics import format_metric
from project.runs.outcome import NOTHING, changes, compare, subject
from project.runs.record import ENVIRONMENT
from project.runs.repeats import Repeats, read_results, repeats
from project.runs.results import Result, read_result

INNER = ("settings", "environment")  # fields of a Result that identify repeats
COLUMNS = [field.name for field in fields(Result) if field.name not in INNER]
RESULT = ("name", "data", "seed", "epochs", "val", "test", "minutes", "state")
NUMBERS = ("seed", "epochs", "val", "test", "minutes", "n")  # columns
MEAN = ("name", "data", "n", "seeds", "folds", "val", "test", "minutes")
MOST_SETTINGS = 6  # columns of settings that differ


def run(args: list[str]) -> list[Any]:
    """Print all runs, or the differences between two, and return the rows.

    Raises:
        RunError: A run to compare does not exist.
    """
    if "compare" in args:
        return _compare([arg for arg in args if arg != "compare"])
    parser = LightParser("runs", "List all runs. `runs compare A B` prints the differences between two runs.")
    parser.add_argument("--seeds", action="store_true", help="Only mean and std over seeds and folds.")
    parser.add_argument("--sort", metavar="COLUMN", choices=COLUMNS, help=f"Default: by start. {', '.join(COLUMNS)}.")
    parser.add_argument("--reverse", action="store_true", help="Latest or highest first.")
    parser.add_argument("--json", action="store_true", help="Print all fields as JSON.")
    options = parser.parse_args(args)
    results, problems = read_results(options.runs_dir)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not results:
        missing = "" if options.runs_dir.is_dir() else ", which does not exist"
        start = "python -m project fit --config configs/resnet.yaml"
        print(f"No runs in {options.runs_dir}/*/*{missing}. Start one: {start}", file=sys.stderr)
    listed, means = (_ordered(rows, options.sort, options.reverse) for rows in (results, repeats(results)))
    rows = means if options.seeds else listed
    if options.json:
        print(json.dumps(list(map(_plain, rows)), indent=2, allow_nan=False))
        return rows
    if listed and not options.seeds:
        print_table("", RESULT, list(map(_result_cells, listed)))
        for result in listed:
            if result.test_note is not None:
                print(f"* {result.name}: {result.test_note}.")
        _print_differing(listed)
        print(end="\n" if means else "")
    if means:
        _print_means(means)
    elif results and options.seeds:
        print("No settings have finished runs with two or more seeds or folds. Use fit --seed_everything 1, 2, ...")
    return rows


def _print_differing(results: Sequence[Result]) -> None:
    """Print the settings in which runs differ, except paths, seeds and trackers."""
    flat = [dict(flatten(result.settings)) for result in results if result.settings]
    keys = dict.fromkeys(key for settings in flat for key in settings if not key.startswith("trainer.logger"))
    differ = [key for key in keys if key not in EXPECTED and len({repr(each.get(key)) for each in flat}) > 1]
    if not differ:
        return
    differ.sort(key=lambda key: not key.startswith(("model.", "data.")))
    names = short_names([key.replace(".init_args", "").removesuffix(".class_path") for key in differ[:MOST_SETTINGS]])
    rows = [
        [result.name, *(_shown(dict(flatten(result.settings)).get(key)) for key in differ[:MOST_SETTINGS])]
        for result in results
        if result.settings
    ]
    more = f" ({MOST_SETTINGS} of {len(differ)}; `runs compare A B` prints all)" if len(differ) > MOST_SETTINGS else ""
    print_table(f"\nSettings that differ{more}", ["name", *names.values()], rows)


def _shown(value: Any) -> str:
    """Return a setting as text: only the name of a class, and a dash for none."""
    return NOTHING if value is None else value.rpartition(".")[2] if is_class(value) else str(value)


def _compare(args: list[str]) -> list[Any]:
    parser = LightParser("runs compare", "Print the differences between two runs.", ("a", "b"))
    options = parser.parse_args(args)
    a, b = (find_run(name, options.runs_dir) for name in (options.a, options.b))
    of_runs = [(run, read_result(run)[0]) for run in (a, b)]
    for name, (run, result) in zip("AB", of_runs, strict=True):
        lines = [f"{name}  {run}", subject(result.settings), result.test_note, changes(run)]
        print("\n   ".join(filter(None, lines)), end="\n\n")
    if settings := differences(load_config(a), load_config(b)):
        print_table("Settings that differ", ("setting", "A", "B"), settings)
    else:
        print("The two configs are the same.")
    if environment := differences(_environment(a), _environment(b)):
        rows = [[cell.replace(MISSING, NOTHING) for cell in row] for row in environment]
        print_table("\nEnvironment that differs", ("field", "A", "B"), rows)
    outcome = compare(*of_runs)
    print_table("\nResults", ("quantity", "A", "B", "B - A"), outcome)
    return outcome


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without its empty columns; in a file or a pipe, its width is not limited."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=10_000 if wide else None, markup=False, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False)
    columns = {name: cells for name, *cells in zip(header, *rows, strict=True) if any(cells)}
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    if title:
        console.print(title)
    console.print(table)


def _environment(run: Path) -> dict[str, Any]:
    """Return what run.json records besides the config; ``seconds`` includes all starts, with their setup."""
    info = record.read(run)
    environment = {"state": record.state_of(run), "seconds": record.seconds(run)}
    environment |= {name: info.get(name) for name in ("data", *ENVIRONMENT)}
    for number, start in enumerate(info.get("resumed", []), 2):
        environment[f"start {number}"] = {name: start[name] for name in ENVIRONMENT if name in start}
    return {name: value for name, value in environment.items() if value}


def _ordered(rows: Sequence[Any], column: str | None, reverse: bool) -> list[Any]:
    """Return results or means sorted; losses after accuracies, and unknown values last."""
    if column is None:
        return list(rows)[::-1] if reverse else list(rows)
    values: list[tuple[Any, Any]] = [(getattr(row, column, getattr(row, f"{column}_mean", None)), row) for row in rows]
    known = sorted((pair for pair in values if pair[0] not in (None, "")), key=lambda pair: pair[0], reverse=reverse)
    known.sort(key=lambda pair: column in ("val", "test") and pair[1].metric == "loss")
    return [row for _, row in known] + [row for value, row in values if value in (None, "")]


def _plain(row: Result | Repeats) -> dict[str, Any]:
    """Return the fields of a row for JSON, which has no NaN and Inf: they become strings that ``float`` parses."""
    values = {name: value for name, value in asdict(row).items() if name not in INNER}
    return {name: str(x) if isinstance(x, float) and not math.isfinite(x) else x for name, x in values.items()}


def _result_cells(result: Result) -> list[str]:
    epochs = NOTHING if result.epochs is None else str(result.epochs)
    test = _score(result.test, result.metric) or (NOTHING if result.test_note is not None else "")
    test += f" ({result.tests} tests)" if result.tests > 1 else ""
    return [
        result.name,
        _class(result.data),
        "" if result.seed is None else str(result.seed),
        epochs if result.planned_epochs is None else f"{epochs}/{result.planned_epochs}",
        _score(result.val, result.metric),
        test if result.test_note is None else f"{test}*",
        _minutes(result.minutes),
        result.state,
    ]


def _print_means(means: Sequence[Repeats]) -> None:
    title = "Mean ± sample std (n - 1) of runs that differ only in seed or fold"
    print_table(title, MEAN, list(map(_mean_cells, means)))
    for summary in means:
        notes = [f"left out {', '.join(summary.left_out)}"] if summary.left_out else []
        notes += [f"not the same {', '.join(summary.differ)}"] if summary.differ else []
        if notes:
            print(f"{summary.name}: {'; '.join(notes)}.")


def _mean_cells(summary: Repeats) -> list[str]:
    test = _score(summary.test_mean, summary.metric, summary.test_std)
    return [
        summary.name,
        " ".join(filter(None, (_class(summary.data), (summary.digest or "")[:8]))),
        str(summary.n),
        " ".join(NOTHING if seed is None else str(seed) for seed in dict.fromkeys(summary.seeds)),
        " ".join(str(fold) for fold in dict.fromkeys(summary.folds) if fold is not None),
        _score(summary.val_mean, summary.metric, summary.val_std),
        test if summary.test_n in (0, summary.n) else f"{test} (n = {summary.test_n})",
        _minutes(summary.minutes_mean),
    ]


def _class(path: str | None) -> str:
    return (path or "").rpartition(".")[2].removesuffix("DataModule")


def _score(value: float | None, metric: str | None, std: float | None = None) -> str:
    if value is None or metric is None:
        return ""
    if std is not None and metric == "acc":
        return f"{100 * value:.2f} ± {100 * std:.2f} %"
    words = format_metric(value, metric) if metric == "acc" else f"loss {format_metric(value, metric)}"
    return words if std is None else f"{words} ± {std:.2g}"


def _minutes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
