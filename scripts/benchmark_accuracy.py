"""Train a recipe with several seeds, and write raw results to a dated directory and a row of configs/README.md.

python scripts/benchmark_accuracy.py --config configs/lenet.yaml --seeds 3 --note "CIFAR-10, JPEG copy"

Each seed is a ``fit --test_after_fit true`` in its own process, with all options that are not listed below: the
checkpoint is selected on val, and tested once, after training. After an interruption, the same command trains the
missing seeds. Results are never overwritten.

There are two clocks. That of training starts with the first epoch, and excludes validation (with the images that
callbacks draw in it), writing checkpoints, imports, data, sanity check and test. That of the whole command includes
everything.
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from measure import fit, hardware, now

from atomic_files import write_atomically
from project.runs.folders import name_of
from project.runs.results import read_result

ROOT = Path(__file__).parents[1]
HEADER = "| recipe | network | data | epochs | hardware | minutes | val accuracy | test accuracy | n |"
PLACES = ("--data.root", "--data.archive", "--runs_dir", "--report")  # paths are not part of a recipe
RESERVED = ("--seed_everything", "--test_after_fit", "--ckpt_path")
SEEDS, ARGUMENTS = "seeds.csv", "arguments.json"
Row = dict[str, Any]


class Clock(Callback):
    """Record both clocks at every validation.

    Args:
        began: Start of the command, as returned by ``time.time``.

    Attributes:
        training: Seconds of training.
        images: Number of training images.
        rows: One row per validation.
        testing: Seconds of the test's batches.
        epoch_starts: Start of each training epoch and end of the last one, as returned by ``measure.now``.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.training = 0.0
        self.images = 0
        self.rows: list[Row] = []
        self.testing = 0.0
        self.epoch_starts: list[float] = []
        self._since: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        if monitor != "val/acc":
            raise MisconfigurationException(f"Expected a checkpoint selected by val/acc, but got {monitor}.")
        save = trainer.save_checkpoint

        def save_untimed(*args: Any, **kwargs: Any) -> None:
            running = self._since is not None
            self._stop()
            save(*args, **kwargs)
            if running:
                self._resume()

        trainer.save_checkpoint = save_untimed  # type: ignore[method-assign]  # there is no hook after a checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resume()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_starts.append(now())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._resume()  # after a validation within an epoch
        self.images += len(batch[0]) * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.rows.append(
                {
                    "epoch": trainer.current_epoch + 1,
                    "step": trainer.global_step,
                    "training_seconds": round(self.training, 3),
                    "seconds": round(time.time() - self.began, 3),
                    "val_acc": trainer.callback_metrics["val/acc"].item(),
                }
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resume()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        self.epoch_starts.append(now())

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.testing = -now()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.testing += now()

    def _resume(self) -> None:
        if self._since is None:
            self._since = now()

    def _stop(self) -> None:
        if self._since is not None:
            self.training += now() - self._since
            self._since = None


def train(seed: int, args: list[str], clock: Clock) -> Row:
    """Train and test with one seed.

    Args:
        seed: Seed.
        args: Options of ``fit``.
        clock: A new clock, which records the curve.

    Returns:
        A row of ``seeds.csv`` without the columns that ``finish_row`` adds.
    """
    cli = fit([*args, f"--seed_everything={seed}", "--test_after_fit=true"], clock)
    if not clock.rows:
        raise SystemExit("error: Expected a validation to select the checkpoint by, but found none.")
    best, _ = read_result(cli.run_dir)
    (tested,) = cli.run_dir.glob("test/*/metrics.csv")
    network = cli.model.network
    return {
        "seed": seed,
        "epochs": cli.trainer.current_epoch,
        "training_minutes": round(clock.training / 60, 5),
        "images_per_second": round(clock.images / clock.training, 1),
        "checkpoint_epoch": best.val_epoch,
        "val_acc": best.val,
        "test_acc": float(read_rows(tested)[-1]["test/acc"]),
        "network": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": type(cli.datamodule).__name__.removesuffix("DataModule"),
        "hardware": hardware(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "lightning")},
    }


def finish_row(row: Row, began: float, commit: str) -> Row:
    """Return a row with the minutes of the whole command, the commit and the date."""
    return row | {"minutes": round((time.time() - began) / 60, 5), "commit": commit, "date": f"{date.today()}"}


def train_missing(folder: Path, seeds: int, args: list[str]) -> list[Row]:
    """Train the seeds that have no row yet, each in its own process, and return all rows."""
    rows = read_rows(folder / SEEDS)
    for seed in range(seeds):
        if any(int(row["seed"]) == seed for row in rows):
            continue
        begin = time.time()
        code = version_of_code()
        own = ["--train_seed", str(seed), "--folder", str(folder), "--began", str(begin)]
        imports = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # as in this process
        process = subprocess.run([sys.executable, __file__, *own, *args], env=imports)
        if process.returncode:
            raise SystemExit(
                f"error: Seed {seed} exited with code {process.returncode}. Earlier seeds are in {folder}. Run "
                "the same command again to train the missing ones."
            )
        row = finish_row(json.loads((folder / "row.json").read_text()), begin, code)
        rows = sorted([*rows, row], key=lambda row: int(row["seed"]))
        write_rows(folder / SEEDS, rows)
        (folder / "row.json").unlink()
        (folder / "README.md").write_text(page(folder))
    return rows


def version_of_code() -> str:
    """Return the commit, with "+ changes" if files other than results differ from it."""

    def git(*args: str) -> str:
        try:
            return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:  # a machine without git
            return ""

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--", ".", ":!scripts/results", ":!configs/README.md")
    return f"{commit} + changes" if changed else commit


def choose_folder(results: Path, name: str, arguments: Row, seeds: int) -> Path:
    """Return the directory of the same arguments with missing seeds, or a new one."""
    for folder in sorted(results.glob(f"*_{name}*")):
        known = folder / ARGUMENTS
        if known.is_file() and json.loads(known.read_text()) == arguments and len(read_rows(folder / SEEDS)) < seeds:
            return folder
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    folder = next(path for suffix in names if not (path := results / f"{date.today()}_{suffix}").exists())
    folder.mkdir(parents=True)
    write_arguments(folder, arguments)
    return folder


def digest_of(configs: Sequence[str]) -> str:
    """Return the SHA-256 of the configs' contents, so that an edited recipe counts as another one."""
    return hashlib.sha256(b"".join(Path(config).read_bytes() for config in configs)).hexdigest()


def describe(configs: list[str], options: Sequence[str], note: str) -> Row:
    """Return what identifies a recipe: its configs with their digest, its options, and the data."""
    return {"configs": configs, "options": without_places(options), "note": note, "sha256": digest_of(configs)}


def write_arguments(folder: Path, arguments: Row) -> None:
    """Write the arguments that the results of a directory belong to."""
    (folder / ARGUMENTS).write_text(json.dumps(arguments, indent=2) + "\n")


def without_places(options: Sequence[str]) -> list[str]:
    """Return options as names and values, without those of paths."""
    split = [part for option in options for part in (option.split("=", 1) if option[:2] == "--" else [option])]
    left, skip = [], False
    for part in split:
        skip = part in PLACES or (skip and not part.startswith("--"))
        left += [] if skip else [part]
    return left


def recipe_cell(configs: Sequence[str], options: Sequence[str]) -> str:
    """Return the name of a recipe in the table: "`resnet.yaml` + `sample.yaml --trainer.max_epochs 3`"."""
    *first, last = [Path(config).name for config in configs]
    return " + ".join(f"`{part}`" for part in [*first, shlex.join([last, *options])])


def key_of(cell: str) -> list[str]:
    """Return a key that is equal for two cells of the same recipe."""
    return without_places(shlex.split(cell.replace(" + ", " ").replace("`", "")))


def percent(values: Sequence[float]) -> str:
    """Format mean and sample standard deviation (n - 1) of shares in percent."""
    mean = f"{statistics.mean(values) * 100:.2f}"
    return f"{mean} ± {statistics.stdev(values) * 100:.2f} %" if len(values) > 1 else f"{mean} %"


def numbers(rows: Sequence[Row], key: str) -> list[float]:
    """Return a column as numbers."""
    return [float(row[key]) for row in rows]


def page(folder: Path) -> str:
    """Return the README of a directory of results."""
    rows = read_rows(folder / SEEDS)
    arguments = json.loads((folder / ARGUMENTS).read_text())
    configs = [part for config in arguments["configs"] for part in ("--config", config)]
    note = ["--note", arguments["note"]] if arguments["note"] else []
    command = shlex.join([*configs, *note, *arguments["options"]])
    first = rows[0]
    caveat = "" if all(row["hardware"] == first["hardware"] for row in rows) else ", of the first seed; see seeds.csv"
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    table = "\n".join(
        f"| {row['seed']} | {row['epochs']} | {float(row['training_minutes']):.2f} | {float(row['minutes']):.2f} | "
        f"{float(row['images_per_second']):,.0f} | {row['checkpoint_epoch']} | {float(row['val_acc']):.2%} | "
        f"{float(row['test_acc']):.2%} | `seed_{row['seed']}.csv` |"
        for row in rows
    )
    training, in_all, pace = (
        statistics.mean(numbers(rows, key)) for key in ("training_minutes", "minutes", "images_per_second")
    )
    val, test = (percent(numbers(rows, key)) for key in ("val_acc", "test_acc"))
    return f"""# {folder.name.partition("_")[2]}, {first["date"]}

`python scripts/benchmark_accuracy.py {command} --seeds {len(rows)}`

Data: {arguments["note"] or first["data"]}. Network: {network_cell(first)}. Hardware: {first["hardware"]}{caveat}.
Python {first["python"]}, torch {first["torch"]}, torchvision {first["torchvision"]}, lightning {first["lightning"]}.
Commit {commits}.

| seed | epochs | minutes of training | minutes in all | images/s | epoch of the checkpoint | val | test | curve |
|---|---|---|---|---|---|---|---|---|
{table}
| mean ± std | | {training:.2f} | {in_all:.2f} | {pace:,.0f} | | {val} | {test} | |

Std is the sample standard deviation (n - 1). The checkpoint was selected on val and tested once, after training.
"Minutes of training" and images/s exclude imports, preparing and opening data, the sanity check, validation with the
images that callbacks draw in it, and writing checkpoints. "Minutes in all" are those of the whole command, with the
test. `seeds.csv` has these rows in full; a curve has one row per validation, with the seconds of both clocks.
"""


def format_minutes(minutes: float) -> str:
    """Format minutes, or seconds if less than one minute."""
    return f"{minutes:.1f}" if minutes >= 1 else f"{minutes * 60:.1f} s"


def network_cell(row: Row) -> str:
    """Return name and size of a network."""
    count = int(row["parameters"])
    size = f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count / 1e3:.0f} thousand"
    return f"{row['network']}, {size} parameters"


def table_rows(table: Path) -> tuple[list[str], int, int]:
    """Return the lines of a file, and the range of the rows of the table of recipes.

    Raises:
        SystemExit: The file has no such table.
    """
    lines = table.read_text().splitlines() if table.is_file() else []
    if HEADER not in lines:
        raise SystemExit(f"error: Expected a table with the line {HEADER} in {table}, but found none. Change --table.")
    begin = lines.index(HEADER) + 2
    end = next((i for i in range(begin, len(lines)) if not lines[i].startswith("|")), len(lines))
    for line in lines[begin:end]:
        if len(cells_of(line)) != HEADER.count("|") - 1:
            raise SystemExit(f"error: Expected {HEADER.count('|') - 1} cells in a row of {table}, but got {line}")
    return lines, begin, end


def cells_of(line: str) -> list[str]:
    """Return the cells of a row."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def refresh(table: Path, folder: Path, hardware_cell: str | None) -> None:
    """Write a result to its row of the table, or to a new one after the last; other lines are unchanged."""
    lines, begin, end = table_rows(table)
    rows, arguments = read_rows(folder / SEEDS), json.loads((folder / ARGUMENTS).read_text())
    recipe = recipe_cell(arguments["configs"], arguments["options"])
    at = next((i for i in range(begin, end) if key_of(cells_of(lines[i])[0]) == key_of(recipe)), None)
    before = ["", "", ""] if at is None else cells_of(lines[at])
    link = os.path.relpath(folder / "README.md", table.parent)
    minutes, in_all = (statistics.mean(numbers(rows, key)) for key in ("training_minutes", "minutes"))
    cells = [
        before[0] or recipe,
        before[1] or network_cell(rows[0]),
        arguments["note"] or before[2] or rows[0]["data"],
        rows[0]["epochs"],
        hardware_cell or rows[0]["hardware"].partition(" (")[0],
        f"{format_minutes(minutes)}, {format_minutes(in_all)} in all",
        percent(numbers(rows, "val_acc")),
        percent(numbers(rows, "test_acc")),
        f"[{len(rows)}]({link})",
    ]
    line = f"| {' | '.join(map(str, cells))} |"
    lines[end if at is None else at : end if at is None else at + 1] = [line]
    table.write_text("\n".join(lines) + "\n")
    print(f"{table}: {line}")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file; an empty list if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file atomically."""
    with write_atomically(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main(args: Sequence[str] | None = None) -> None:
    """Train missing seeds, and refresh the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", action="append", default=[], help="recipe, then overlays")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds: 0, 1, 2, ...")
    parser.add_argument("--name", help="name of the directory after the date; default: that of the run")
    parser.add_argument("--note", default="", help="description of the data in the table")
    parser.add_argument("--hardware", help="description of the hardware in the table; default: detected")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "scripts" / "results", help="parent of the new directory"
    )
    parser.add_argument("--table", type=Path, default=ROOT / "configs" / "README.md", help="file of the table")
    for hidden, kind in (("--train_seed", int), ("--folder", Path), ("--began", float)):  # for the process of one seed
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args(args)
    fit_args = [part for config in options.config for part in ("--config", config)] + rest
    if options.train_seed is not None:
        clock = Clock(options.began)
        row = train(options.train_seed, fit_args, clock)
        write_rows(options.folder / f"seed_{options.train_seed}.csv", clock.rows)
        (options.folder / "row.json").write_text(json.dumps(row))
        return
    if not options.config or options.seeds < 1:
        parser.error("Expected --config configs/RECIPE.yaml and 1 or more --seeds.")
    if taken := [option for option in rest if option.split("=")[0] in RESERVED]:
        parser.error(f"Expected no {taken[0]}, because this script sets it for each seed.")
    table_rows(options.table)  # fail before training, not after hours
    arguments = describe(options.config, rest, options.note)
    name = options.name or name_of(options.config)
    folder = choose_folder(options.results, name, arguments, options.seeds)
    print(f"Results: {folder}", flush=True)
    train_missing(folder, options.seeds, fit_args)
    refresh(options.table, folder, options.hardware)


if __name__ == "__main__":
    main()
