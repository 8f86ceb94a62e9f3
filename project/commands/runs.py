"""``runs``: all runs in a table, mean and std over seeds, and what differs between two runs."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from project.commands.light_parser import LightParser, json_number, report_run_errors
from project.commands.table import print_table
from project.runs import record
from project.runs.config import MISSING, differences
from project.runs.folders import find_run
from project.runs.metrics import shown
from project.runs.record import ENVIRONMENT
from project.runs.results import Repeats, Result, read_results, repeats

INNER = ("settings", "circumstances")  # of a Result: what repeats are told by
COLUMNS = [field.name for field in fields(Result) if field.name not in INNER]
MEANS = [field.name for field in fields(Repeats)]
RESULT = ("name", "data", "root", "seed", "epochs", "val", "test", "minutes", "started", "state")
MEAN = ("name", "data", "n", "seeds", "val", "test", "minutes")
FIRST_TO_GO = ("started", "root", "data", "minutes", "seeds", "epochs")  # a run's name tells its start as well
NOTHING = "\N{EN DASH}"


def run(args: list[str]) -> list[Any]:
    """Print all runs, or what differs between two, and return it.

    Raises:
        SystemExit: The command line is not as expected, or there is no such run to compare.
    """
    if "compare" in args:
        return _compare([arg for arg in args if arg != "compare"])
    parser = LightParser("runs", "List all runs. `runs compare A B` tells what differs between two of them.", ())
    parser.add_argument("--seeds", action="store_true", help="Only mean and std of runs that differ in their seed.")
    parser.add_argument("--sort", metavar="COLUMN", choices=COLUMNS, help=f"By default by start. {', '.join(COLUMNS)}.")
    parser.add_argument("--reverse", action="store_true", help="Start with the latest, or the highest.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print all that is known, as JSON.")
    form.add_argument("--csv", action="store_true", help="The same as CSV.")
    options = parser.parse_args(args)
    with report_run_errors():
        results, problems = read_results(Path(options.runs_dir))
        for problem in problems:
            print(problem, file=sys.stderr)
        if not results:
            there = "" if Path(options.runs_dir).is_dir() else ", which does not exist"
            start = "python -m project fit --config configs/resnet.yaml"
            print(f"No runs in {options.runs_dir}/*/*{there}. Start one: {start}", file=sys.stderr)
        listed = _ordered(results, options.sort, options.reverse)
        means = _ordered(repeats(results), options.sort, options.reverse)
        rows, columns = (means, MEANS) if options.seeds else (listed, COLUMNS)
        if options.json:
            print(json.dumps([_plain(row, columns) for row in rows], indent=2, allow_nan=False))
        elif options.csv:
            writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in _plain(row, columns).items()} for row in rows)
        else:
            if listed and not options.seeds:
                _print_results(listed)
                print(end="\n" if means else "")
            if means:
                _print_means(means)
            elif results and options.seeds:
                print("No settings were run to the end with two seeds or more: fit --seed_everything 1, 2, ...")
    return rows


def _compare(args: list[str]) -> list[Any]:
    parser = LightParser("runs compare", "Print what differs between two runs.", ("a", "b"))
    options = parser.parse_args(args)
    with report_run_errors():
        folders = [find_run(name, Path(options.runs_dir)) for name in (options.a, options.b)]
        from project.report.compare import outcome_rows  # takes a second, which a list of runs need not wait
        from project.report.outcome import sentence, warnings
        from project.report.read import read_run

        a, b = map(read_run, folders)
        for name, one in (("A", a), ("B", b)):
            print("\n   ".join([f"{name}  {one.folder}", sentence(one), *warnings(one)]), end="\n\n")
        if settings := differences(a.config, b.config):
            print_table("Settings that differ", ("setting", "A", "B"), settings)
        else:
            print("The two configs are the same.")
        if around := differences(*map(_circumstances, folders)):
            rows = [[cell.replace(MISSING, NOTHING) for cell in row] for row in around]
            print_table("\nCircumstances that differ", ("what", "A", "B"), rows)
        outcome = outcome_rows(a, b)
        print_table("\nWhat came out", ("quantity", "A", "B", "B - A"), outcome)
    return outcome


def _circumstances(run: Path) -> dict[str, Any]:
    """Return what run.json tells beside the config; ``seconds`` are those of all starts, setting up among them."""
    told = record.read(run)
    found = {"state": record.state_of(run), "seconds": record.seconds(run)}
    found |= {name: told.get(name) for name in ("data", *ENVIRONMENT)}
    for start, one in enumerate(told.get("resumed", []), 2):
        found[f"start {start}"] = {name: one[name] for name in ENVIRONMENT if name in one}
    return {name: value for name, value in found.items() if value}


def _ordered(rows: Sequence[Any], column: str | None, reverse: bool) -> list[Any]:
    """Return results or means sorted; unknown values last, and losses behind accuracies."""
    if column is None:
        return list(rows)[::-1] if reverse else list(rows)

    def value(row: Any) -> Any:
        return getattr(row, column, getattr(row, f"{column}_mean", None))

    known = sorted((row for row in rows if value(row) not in (None, "")), key=value, reverse=reverse)
    known.sort(key=lambda row: column in ("val", "test") and row.metric == "loss")
    return known + [row for row in rows if value(row) in (None, "")]


def _plain(row: Result | Repeats, columns: Sequence[str]) -> dict[str, Any]:
    values = asdict(row)
    return {name: json_number(one) if isinstance(one := values[name], float) else one for name in columns}


def _cell(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def _print_results(results: Sequence[Result]) -> None:
    print_table("", RESULT, list(map(_result_cells, results)), FIRST_TO_GO)
    for one in results:
        if one.test_note is not None:
            print(f"* {one.name}: {one.test_note}.")


def _result_cells(one: Result) -> list[str]:
    done = NOTHING if one.epochs is None else str(one.epochs)
    test = _score(one.test, one.metric) or (NOTHING if one.test_note is not None else "")
    test += f" ({one.tests} tests)" if one.tests > 1 else ""
    return [
        one.name,
        _class(one.data),
        one.root or "",
        "" if one.seed is None else str(one.seed),
        done if one.planned_epochs is None else f"{done}/{one.planned_epochs}",
        _score(one.val, one.metric),
        test if one.test_note is None else f"{test}*",
        _minutes(one.minutes),
        datetime.fromisoformat(one.started).astimezone().strftime("%Y-%m-%d %H:%M") if one.started else "",
        one.state,
    ]


def _print_means(means: Sequence[Repeats]) -> None:
    title = "Mean ± sample std (n - 1) of runs that differ in their seed alone"
    print_table(title, MEAN, list(map(_mean_cells, means)), FIRST_TO_GO)
    for one in means:
        notes = [f"left out {', '.join(one.left_out)}"] if one.left_out else []
        notes += [f"not the same {', '.join(one.differ)}"] if one.differ else []
        if notes:
            print(f"{one.name}: {'; '.join(notes)}.")


def _mean_cells(one: Repeats) -> list[str]:
    test = _spread(one.test_mean, one.test_std, one.metric)
    return [
        one.name,
        " ".join(filter(None, (_class(one.data), (one.digest or "")[:8]))),
        str(one.n),
        " ".join(NOTHING if seed is None else str(seed) for seed in one.seeds),
        _spread(one.val_mean, one.val_std, one.metric),
        test if one.test_n in (0, one.n) else f"{test} (n = {one.test_n})",
        _minutes(one.minutes_mean),
    ]


def _class(path: str | None) -> str:
    return (path or "").rpartition(".")[2].removesuffix("DataModule")


def _score(value: float | None, metric: str | None) -> str:
    if value is None or metric is None:
        return ""
    return f"{'' if metric == 'acc' else 'loss '}{shown(value, metric)}"


def _minutes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _spread(value: float | None, std: float | None, metric: str | None) -> str:
    if value is None or metric is None or std is None:
        return _score(value, metric)
    return f"{100 * value:.2f} ± {100 * std:.2f} %" if metric == "acc" else f"loss {value:.4g} ± {std:.2g}"
