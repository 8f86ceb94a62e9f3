"""Convert the results of scripts/gpu.sh to dated directories of results and rows of the table in configs/README.md.

python scripts/gpu_table.py OUT

Writes ``DATE_gpu`` with a page and the JSON files, and, like ``benchmark_accuracy.py``, a directory and a row for each
recipe that was trained. Rows of other recipes are unchanged.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmark_accuracy import (
    ROOT,
    SEEDS,
    choose_folder,
    page,
    percent,
    refresh,
    table_rows,
    write_rows,
)
from benchmark_callbacks import histogram_lines
from benchmark_step import BARE, BAREBONES, PROJECT

from project.runs.folders import name_of

PARTS = ("tests", "airbench", "resnet", "operations", "steps", "airbench_sgd", "airbench_compiled")
RECIPES = ("airbench", "resnet", "airbench_sgd")  # parts with a recipe of the same name
VARIANTS = {
    "airbench": "`airbench.yaml`",
    "airbench_without_callbacks": "`airbench.yaml`, no callbacks",
    "airbench_compiled": "`airbench.yaml`, no callbacks, compiled",
}
PEERS = {"peer": "`airbench94_muon.py`, not compiled", "peer_compiled": "`airbench94_muon.py`"}
Results = dict[str, Any]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Format mean and sample standard deviation (n - 1)."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Format median, minimum and maximum."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def tests_lines(results: Results) -> list[str]:
    """Return the numbers of passed and failed tests, and the names of failed ones."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(results["outcomes"].items())) or "none"
    return [f"`pytest -m cuda`: {counts}.", *(f"Failed: `{name}`." for name in results["failures"])]


def seconds_of(recipe: Results) -> list[float]:
    """Return the seconds of training plus the test with its views, for each seed."""
    training = [float(row["training_minutes"]) * 60 for row in recipe["rows"]]
    return [train + test for train, test in zip(training, recipe["test_seconds"], strict=True)]


def airbench_lines(results: Results) -> list[str]:
    """Return the comparison of airbench.yaml with the published script."""
    runs: dict[str, tuple[list[float], list[float]]] = {}
    for key, name in VARIANTS.items():
        if key in results:
            runs[name] = seconds_of(results[key]), [float(row["test_acc"]) for row in results[key]["rows"]]
    for key, name in PEERS.items():
        if results.get(key):
            runs[name] = [run["seconds"] for run in results[key]], [run["accuracy"] for run in results[key]]
    fastest = min((statistics.mean(runs[name][0]) for name in PEERS.values() if name in runs), default=None)
    lines = [
        "Seconds of training plus the test with its views, without compiling, reading data and validation, as in the",
        "published script. All use the same training and test images.",
        "",
        "| recipe | n | seconds, mean ± std | over the published script | test accuracy, mean ± std |",
        "|---|---|---|---|---|",
    ]
    for name, (seconds, accuracies) in runs.items():
        ratio = f"{statistics.mean(seconds) / fastest:.2f}" if fastest else "not yet measured"
        lines.append(f"| {name} | {len(seconds)} | {spread(seconds)} | {ratio} | {percent(accuracies)} |")
    errors = [results[f"{key}_error"] for key in PEERS if f"{key}_error" in results]
    return [*lines, *(line for error in errors for line in ("", f"{error}."))]


def resnet_lines(results: Results) -> list[str]:
    """Return the seconds of epochs of resnet.yaml with all callbacks and with none."""
    lines = ["| `resnet.yaml`, bf16-mixed | epochs | seconds per epoch, median (min to max) |", "|---|---|---|"]
    for key, name in (("epoch_seconds_without_callbacks", "no callbacks"), ("epoch_seconds", "all callbacks")):
        if key in results:
            epochs = results[key][1:]  # the first one is a warm-up
            lines.append(f"| {name} | {len(epochs)} | {middle(epochs)} |")
    return [*lines, "", "An epoch includes validation, drawing and checkpoints; the first is excluded."]


def steps_lines(results: Results) -> list[str]:
    """Return the time of a step relative to the bare loop, and the operations that wait for the GPU."""
    lines = []
    for network, waits in results.get("waits", {}).items():
        places = ", ".join(f"`{place}` {count} times" for place, count in waits["places"].items()) or "none"
        lines += [f"{network}: operations that wait for the GPU in {waits['steps']} steps: {places}.", ""]
    differences = []
    lines += ["| network | method | n | step, ms, median (min to max) | over bare, median |", "|---|---|---|---|---|"]
    for network, repeats in results.get("steps", {}).items():
        bare = [statistics.median(repeat[BARE]["steps"][1:]) for repeat in repeats]
        for way in (BARE, BAREBONES, PROJECT):
            times = [statistics.median(repeat[way]["steps"][1:]) for repeat in repeats]
            ratio = statistics.median(time / base for time, base in zip(times, bare, strict=True))
            milliseconds = middle([time * 1e3 for time in times])
            lines.append(f"| {network} | {way} | {len(times)} | {milliseconds} | {ratio:.3f} |")
        differences += [repeat["difference"] for repeat in repeats]
    if differences:
        lines += ["", f"Weights of {PROJECT} and {BARE} differ by at most {max(differences):.2g} at the end."]
    return lines


def operations_lines(results: Results) -> list[str]:
    """Return the time of histograms, and the number of images per second of each transform and of crops of photos."""
    lines = histogram_lines(results["histograms"])
    if "augmentation" in results:
        lines += ["", *augmentation_lines(results["augmentation"])]
    if "photos" in results:
        lines += [
            "",
            "| random crops of 224x224 from JPEG photos of 500x375 | images/s, median (min to max) |",
            "|---|---|",
        ]
        lines += [f"| {who} | {middle(rates, 0)} |" for who, rates in results["photos"].items()]
    return lines


def augmentation_lines(results: Results) -> list[str]:
    """Return the number of images per second of each transform."""
    lines = ["| transform, uint8 32x32 | " + " | ".join(results) + " |", f"|---|{'---|' * len(results)}"]
    for name in next(iter(results.values()), {}):
        cells = [f"{statistics.median(rates[name]):,.0f}" if name in rates else "" for rates in results.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "Images per second, median."]


LINES: dict[str, Callable[[Results], list[str]]] = {
    "tests": tests_lines,
    "airbench": airbench_lines,
    "resnet": resnet_lines,
    "operations": operations_lines,
    "steps": steps_lines,
}


def page_of(parts: dict[str, Results], folders: dict[str, Path]) -> str:
    """Return the page with all results."""
    first = next(iter(parts.values()))
    facts = ", ".join(f"{name} {value}" for name, value in first["machine"].items() if name != "hardware")
    lines = [f"# GPU, {first['date']}", "", f"{first['machine']['hardware']}; {facts}.", f"Commit {first['commit']}."]
    results = {key: value for part in parts.values() for key, value in part["results"].items()}
    for name in PARTS:
        lines += ["", f"## {name}", ""]
        part = parts.get(name)
        if part is None or not part["results"]:
            lines.append(f"Not yet measured{': ' + part['error'] if part and 'error' in part else ''}.")
            continue
        lines += [f"`{part['command']}`; data: {part['data']}.", ""]
        if not part["complete"]:
            lines += [f"Incomplete: {part.get('error', 'the part was stopped at its deadline')}.", ""]
        lines += LINES[name](results) if name in LINES else ["See the part airbench."]
        if name in folders:
            lines += ["", f"As a recipe: [{folders[name].name}](../{folders[name].name}/README.md)."]
    return "\n".join(lines) + "\n"


def write_recipe(recipe: Results, results: Path) -> Path:
    """Write a recipe's seeds and curves like ``benchmark_accuracy.py``, and return their directory."""
    arguments = recipe["arguments"]
    folder = choose_folder(results, name_of(arguments["configs"]), arguments, len(recipe["rows"]))
    write_rows(folder / SEEDS, recipe["rows"])
    for row, curve in zip(recipe["rows"], recipe["curves"], strict=True):
        write_rows(folder / f"seed_{row['seed']}.csv", curve)
    (folder / "README.md").write_text(page(folder))
    return folder


def main(args: Sequence[str] | None = None) -> None:
    """Write directories of results and rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory that scripts/gpu.sh wrote")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "scripts" / "results", help="parent of the new directories"
    )
    parser.add_argument("--table", type=Path, default=ROOT / "configs" / "README.md", help="file of the table")
    options = parser.parse_args(args)
    parts = {name: json.loads(path.read_text()) for name in PARTS if (path := options.out / f"{name}.json").is_file()}
    if not parts:
        raise SystemExit(
            f"error: Expected a directory that scripts/gpu.sh wrote, but {options.out} has no JSON file of a part."
        )
    if any(part["tiny"] for part in parts.values()) and options.table == parser.get_default("table"):
        raise SystemExit(f"error: {options.out} holds a trial (--tiny), not measurements. Use another --table.")
    table_rows(options.table)
    folders = {}
    for name in RECIPES:
        recipe = parts.get(name, {}).get("results", {}).get(name)
        if recipe:
            folders[name] = write_recipe(recipe, options.results)
            refresh(options.table, folders[name], None)
    target = options.results / f"{date.today()}_gpu"
    number = 1
    while target.exists():
        number += 1
        target = options.results / f"{date.today()}_gpu_{number}"
    target.mkdir(parents=True)
    for name in parts:
        shutil.copy(options.out / f"{name}.json", target)
    (target / "README.md").write_text(page_of(parts, folders))
    print(f"{target}/README.md")


if __name__ == "__main__":
    main()
