"""Read the metrics of training, validation and tests from run directories. Imports no torch."""

import csv
import hashlib
import json
import math
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from project.errors import RunError
from project.runs import record
from project.runs.config import BEST, RESULTS, load_config, setting

METRICS = "metrics.csv"
STAGES = {"validate": "val", "test": "test"}  # command: stage
PER_EPOCH = ("train/loss", "train/acc", "val/loss", "val/acc")  # logged at the last step of an epoch
POSITION = ("epoch", "step")  # columns of metrics.csv


class Circumstances(NamedTuple):
    """Weights and images that a validation or test used."""

    weights: str
    epoch: int | None  # epoch of the weights, from 1; None if unknown
    of_best: bool  # whether they were the run's best.ckpt at the time
    is_old: bool  # whether best.ckpt was replaced afterwards
    limit: float | None  # number or share of the batches; None if all
    other_data: str  # root and digest of the data if it is not the run's, or ""

    @property
    def is_usual(self) -> bool:
        """Whether it used the run's present best checkpoint, and all images of the run's data."""
        return self.of_best and not self.is_old and self.limit is None and not self.other_data


class Measured(NamedTuple):
    """Result of a validation or test."""

    metric: str  # "acc" or "loss"
    value: float
    setup: Circumstances


class Moment(NamedTuple):
    """When a checkpoint was written."""

    epoch: int  # from 0
    step: int  # global_step of the loggers: that of the preceding validation, or one more


def best_validation(run: Path, metric: str = "acc") -> dict[str, float]:
    """Return ``train`` and ``val`` accuracy, or loss, and ``epoch`` of the best checkpoint of a run.

    Values that were not logged are left out.
    """
    monitor, mode = monitor_of(run)
    return best_of(read_metrics(run, (*PER_EPOCH, monitor)), metric, monitor, mode, moment_of(run / BEST))


def monitor_of(run: Path) -> tuple[str, str]:
    """Return the monitored metric of the best checkpoint, and "max" or "min"; two "" if the config cannot be read."""
    with suppress(RunError, OSError):
        config = load_config(run)
        return str(setting(config, "checkpoint.monitor")), str(setting(config, "checkpoint.mode"))
    return "", ""


def best_of(
    rows: list[dict[str, float]], metric: str, monitor: str = "", mode: str = "", moment: Moment | None = None
) -> dict[str, float]:
    """Return the result of ``best_validation`` from rows of metrics.csv; see ``best_row``."""
    best = best_row(rows, metric, monitor, mode, moment)
    if best is None:
        return {}
    values = {"epoch": best["epoch"], "val": best[f"val/{metric}"]}
    train = [row[f"train/{metric}"] for row in rows if f"train/{metric}" in row and row["epoch"] == best["epoch"]]
    return values | ({"train": train[-1]} if train else {})


def best_row(
    rows: list[dict[str, float]], metric: str, monitor: str, mode: str, moment: Moment | None
) -> dict[str, float] | None:
    """Return the row that holds the validation of the best checkpoint.

    That is the last validation before the checkpoint was written, or else the first one. Without best.ckpt, it is the
    validation with the best ``monitor``, or the best ``val/<metric>`` if ``monitor`` has no values. Validations that
    are NaN or Inf are ignored.

    Args:
        rows: Values by tag; "step" and "epoch" may be missing.
        metric: "acc" or "loss".
        monitor: Tag of the metric that selects the checkpoint.
        mode: "max" or "min".
        moment: When best.ckpt was written; None if there is none, or it cannot be read.
    """
    validations = [row for row in rows if math.isfinite(row.get(f"val/{metric}", math.nan))]
    if not validations:
        return None
    if moment is not None:
        epoch, step = moment
        before = [row for row in validations if row.get("epoch", 0) <= epoch and row.get("step", 0) <= step]
        return before[-1] if before else validations[0]
    candidates = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    if not candidates:
        monitor, mode, candidates = f"val/{metric}", "max" if metric == "acc" else "min", validations
    choose = max if mode == "max" else min
    best = choose(candidates, key=lambda row: row[monitor])  # the first if equal, as in ModelCheckpoint
    if f"val/{metric}" not in best:  # the monitored metric is one of training
        order = "step" if "step" in best else "epoch"
        best = next((row for row in validations if row[order] >= best[order]), validations[-1])
    return best


def moment_of(checkpoint: Path) -> Moment | None:
    """Return when a checkpoint was written; None if the file is missing or is not one of Lightning's.

    torch.save writes a ZIP archive with a pickle, in which an integer follows its key. Searching the bytes needs
    neither torch nor an unpickler, which could execute code.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile):  # ValueError: damaged
        return None
    values = []
    for key in (b"epoch", b"_batches_that_stepped"):
        text = re.escape(b"X" + len(key).to_bytes(4, "little") + key)
        # the opcodes BINUNICODE, BINPUT or LONG_BINPUT, and BININT1, BININT2 or BININT of pickle's protocol 2
        match = re.search(text + rb"(?:q.|r.{4})(?:K(.)|M(..)|J(.{4}))", content, re.DOTALL)
        if match is None:
            return None
        values.append(int.from_bytes(match[match.lastindex or 0], "little"))
    return Moment(*values)


def measurement(output: Path) -> Measured | None:
    """Return the result of a validation or test from its directory; None if it has none."""
    stage = STAGES.get(output.parent.name)
    tags = [f"{stage}/{metric}" for metric in ("acc", "loss")]
    rows = read_metrics(output, tags)
    for tag in tags:
        for row in rows:
            if tag in row:
                return Measured(tag.rpartition("/")[2], row[tag], circumstances(output))
    return None


def circumstances(output: Path) -> Circumstances:
    """Return the weights and images that a validation or test used.

    A test belongs to the checkpoint whose digest is in its results.json.

    Raises:
        RunError: The config is not YAML.
        OSError: The config cannot be read.
    """
    config, run = load_config(output), output.parents[1]
    try:
        results = dict(json.loads((output / RESULTS).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # the command is still running, or was killed
        results = {}
    weights = str(setting(config, "ckpt_path") or setting(config, "model.init_args.pretrained"))
    name, *file = ("", "", *Path(weights).parts)[-3:]
    of_best = tuple(file) == BEST.parts and name in ("", run.name)
    is_old, digest = False, results.get("checkpoint_digest")
    if digest is not None and (run / BEST).is_file():
        same = digest == digest_of(run / BEST)
        # best.ckpt may also have been tested under another path
        of_best, is_old = of_best or same, not same and of_best
    limit = setting(config, f"trainer.limit_{STAGES[output.parent.name]}_batches")
    return Circumstances(weights, results.get("epoch"), of_best, is_old, limit, _other_data(run, results))


def digest_of(checkpoint: Path) -> str:
    """Return a digest of the content of a checkpoint.

    For a ZIP archive, which torch.save writes, it is the digest of the table of contents, which holds a CRC-32 of each
    tensor: fast for large files too.
    """
    if zipfile.is_zipfile(checkpoint):
        with zipfile.ZipFile(checkpoint) as archive:
            members = [(member.filename, member.file_size, member.CRC) for member in archive.infolist()]
        return hashlib.sha256(repr(members).encode()).hexdigest()
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_data(run: Path, results: dict[str, Any]) -> str:
    """Return root and digest of the data of a validation or test, or "" if it is the run's data, or unknown."""
    data, of_run = results.get("data") or {}, record.read(run).get("data") or {}
    root, digest = data.get("root", ""), data.get("digest")
    same = digest == of_run["digest"] if digest and of_run.get("digest") else root == of_run.get("root", root)
    return "" if same else f"{root} ({digest[:8]})" if digest else root


def measurement_text(output: Path) -> str:
    """Return the result of a validation or test as text: "test 71.20% by checkpoints/best.ckpt"."""
    result = measurement(output)
    if result is None:
        return ""
    stage = STAGES[output.parent.name]
    metric = "" if result.metric == "acc" else "loss "
    return f"{stage} {metric}{format_metric(result.value, result.metric)} by {setup_text(result.setup, stage)}"


def setup_text(setup: Circumstances, stage: str = "test") -> str:
    """Return weights, other data and limit as text."""
    epoch = "" if setup.epoch is None else f" of epoch {setup.epoch}"
    data = f", on other data than the run's: {setup.other_data}" if setup.other_data else ""
    part = "" if setup.limit is None else f", on part of the images (limit_{stage}_batches {setup.limit})"
    return f"{setup.weights}{epoch}{data}{part}"


def age_text(setup: Circumstances) -> str:
    """Return a note for a test whose checkpoint was replaced afterwards."""
    epoch = "an unknown checkpoint" if setup.epoch is None else f"epoch {setup.epoch}"
    return f"tested at {epoch}; best.ckpt is newer"


def format_metric(value: float, metric: str) -> str:
    """Format an accuracy in percent, or a loss with four digits."""
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


def read_metrics(folder: Path, tags: Sequence[str]) -> list[dict[str, float]]:
    """Return the rows of metrics.csv that have a value for one of the tags, with ``epoch`` and ``step``, as numbers.

    Damaged rows, and an incomplete row at the end of the file, are left out.
    """
    try:
        text = (folder / METRICS).read_text(errors="replace")
    except FileNotFoundError:
        return []
    top, _, body = text[: text.rfind("\n") + 1].partition("\n")
    header = next(csv.reader([top]), [])  # class names in the header may contain commas
    # matches most rows; a regex removes them fast
    without = ",".join("" if tag in tags else "[^,\n]*" for tag in header)
    rows = []
    for line in re.sub(f"^{without}\n", "", body, flags=re.MULTILINE).splitlines():
        with suppress(ValueError):  # not a number, or a wrong number of cells
            cells = zip(header, line.split(","), strict=True)
            rows.append({tag: float(cell) for tag, cell in cells if cell and tag in (*tags, *POSITION)})
    return [row for row in rows if "epoch" in row and row.keys() - POSITION]
