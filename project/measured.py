"""What training, validation and tests found, as their folders say it. No torch in here."""

import csv
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from project.record import RunError
from project.settings import load_config, setting

METRICS = "metrics.csv"
STAGES = {"validate": "val", "test": "test"}  # what a command measures
PER_EPOCH = ("train/loss", "train/acc", "val/loss", "val/acc")  # at the last step of an epoch


class Measured(NamedTuple):
    """What a validation or test found, with which weights, on how many of the images (None: all)."""

    metric: str  # "acc" or "loss"
    value: float
    weights: str
    limit: float | None


def best_validation(run: Path, metric: str = "acc") -> dict[str, float]:
    """Return what a run's files say: ``train`` and ``val`` accuracy, or loss, and ``epoch`` of the best checkpoint.

    A figure that the files do not hold is left out.
    """
    monitor, mode = monitor_of(run)
    return best_of(read_metrics(run, (*PER_EPOCH, monitor)), metric, monitor, mode)


def monitor_of(run: Path) -> tuple[str, str]:
    """Return what the best checkpoint of a run is chosen by, and "max" or "min"; "" of a config that does not tell."""
    with suppress(RunError, OSError):
        config = load_config(run)
        return str(setting(config, "checkpoint.monitor")), str(setting(config, "checkpoint.mode"))
    return "", ""


def best_of(rows: list[dict[str, float]], metric: str, monitor: str = "", mode: str = "") -> dict[str, float]:
    """Return the same of the rows of metrics.csv: of the best ``monitor``, or ``val/<metric>`` if it has no values.

    A validation that is not finite is never the best.
    """
    validations = [row for row in rows if math.isfinite(row.get(f"val/{metric}", math.nan))]
    if not validations:
        return {}
    watched = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    if not watched:
        monitor, mode, watched = f"val/{metric}", "max" if metric == "acc" else "min", validations
    choose = max if mode == "max" else min
    best = choose(watched, key=lambda row: row[monitor])  # the first of equals, as ModelCheckpoint
    if f"val/{metric}" not in best:  # it was chosen by what training logs
        best = next((row for row in validations if row["epoch"] >= best["epoch"]), validations[-1])
    found = {"epoch": best["epoch"], "val": best[f"val/{metric}"]}
    train = [row[f"train/{metric}"] for row in rows if f"train/{metric}" in row and row["epoch"] == best["epoch"]]
    return found | ({"train": train[-1]} if train else {})


def measurement(output: Path) -> Measured | None:
    """Return what a validation or test found, as its folder says it; None if it found nothing."""
    stage = STAGES.get(output.parent.name)
    tags = [f"{stage}/{metric}" for metric in ("acc", "loss")]
    rows = read_metrics(output, tags)
    for tag in tags:
        for row in rows:
            if tag in row:
                config = load_config(output)
                weights = setting(config, "ckpt_path") or setting(config, "model.init_args.pretrained")
                limit = setting(config, f"trainer.limit_{stage}_batches")
                return Measured(tag.rpartition("/")[2], row[tag], str(weights), limit)
    return None


def measured(output: Path) -> str:
    """Return the same in words: "test 71.20% by checkpoints/best.ckpt"."""
    found = measurement(output)
    if found is None:
        return ""
    stage = STAGES[output.parent.name]
    part = "" if found.limit is None else f", on a part of the images (limit_{stage}_batches {found.limit})"
    metric = "" if found.metric == "acc" else "loss "
    return f"{stage} {metric}{shown(found.value, found.metric)} by {found.weights}{part}"


def shown(value: float, metric: str) -> str:
    """Return an accuracy in percent, or a loss in four digits."""
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


def read_metrics(folder: Path, tags: Sequence[str]) -> list[dict[str, float]]:
    """Return the rows of metrics.csv that hold one of the tags, with ``epoch``, as numbers.

    A row that is damaged, or half written at the end of the file, is left out.
    """
    try:
        text = (folder / METRICS).read_text(errors="replace")
    except FileNotFoundError:
        return []
    top, _, body = text[: text.rfind("\n") + 1].partition("\n")
    header = next(csv.reader([top]), [])  # a class's name may hold a comma, a number does not
    without = ",".join("" if tag in tags else "[^,\n]*" for tag in header)  # most rows, and a regex drops them fast
    rows = []
    for line in re.sub(f"^{without}\n", "", body, flags=re.MULTILINE).splitlines():
        with suppress(ValueError):  # no number, or too few or many
            cells = zip(header, line.split(","), strict=True)
            rows.append({tag: float(cell) for tag, cell in cells if cell and (tag in tags or tag == "epoch")})
    return [row for row in rows if "epoch" in row and len(row) > 1]


def is_number(text: str) -> bool:
    """Tell whether a cell of metrics.csv holds a number, NaN among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True
