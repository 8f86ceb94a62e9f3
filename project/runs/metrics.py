"""What training, validation and tests found, as their folders say it. No torch in here."""

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
STAGES = {"validate": "val", "test": "test"}  # what a command measures
PER_EPOCH = ("train/loss", "train/acc", "val/loss", "val/acc")  # at the last step of an epoch
POSITION = ("epoch", "step")  # of a row of metrics.csv


class Circumstances(NamedTuple):
    """Weights and images that a validation or test used."""

    weights: str
    epoch: int | None  # epoch of the weights, from 1; None if unknown
    of_best: bool  # whether they were the run's best.ckpt at the time
    is_old: bool  # whether best.ckpt was replaced since
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
    under: Circumstances


class Moment(NamedTuple):
    """When a checkpoint was written."""

    epoch: int  # from 0
    step: int  # as loggers count it: that of the validation before it, or one more


def best_validation(run: Path, metric: str = "acc") -> dict[str, float]:
    """Read ``train`` and ``val`` accuracy, or loss, and ``epoch`` of the best checkpoint from the files of a run.

    A figure that the files do not hold is left out.
    """
    monitor, mode = monitor_of(run)
    return best_of(read_metrics(run, (*PER_EPOCH, monitor)), metric, monitor, mode, moment_of(run / BEST))


def monitor_of(run: Path) -> tuple[str, str]:
    """Return what the best checkpoint of a run is chosen by, and "max" or "min"; "" of a config that does not tell."""
    with suppress(RunError, OSError):
        config = load_config(run)
        return str(setting(config, "checkpoint.monitor")), str(setting(config, "checkpoint.mode"))
    return "", ""


def best_of(
    rows: list[dict[str, float]], metric: str, monitor: str = "", mode: str = "", moment: Moment | None = None
) -> dict[str, float]:
    """Return the same of the rows of metrics.csv; see ``best_row``."""
    best = best_row(rows, metric, monitor, mode, moment)
    if best is None:
        return {}
    found = {"epoch": best["epoch"], "val": best[f"val/{metric}"]}
    train = [row[f"train/{metric}"] for row in rows if f"train/{metric}" in row and row["epoch"] == best["epoch"]]
    return found | ({"train": train[-1]} if train else {})


def best_row(
    rows: list[dict[str, float]], metric: str, monitor: str, mode: str, moment: Moment | None
) -> dict[str, float] | None:
    """Return the row that holds the validation of the best checkpoint.

    That is the last validation before it was written, or else the first one. Of a run without best.ckpt, it is the one
    of the best ``monitor``, or ``val/<metric>`` if that has no values. A validation that is not finite is never the
    best.

    Args:
        rows: Tags with values, among them "step" and "epoch" as far as they are known.
        metric: "acc" or "loss".
        monitor: Tag that the checkpoint is chosen by.
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
    watched = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    if not watched:
        monitor, mode, watched = f"val/{metric}", "max" if metric == "acc" else "min", validations
    choose = max if mode == "max" else min
    best = choose(watched, key=lambda row: row[monitor])  # the first of equals, as ModelCheckpoint
    if f"val/{metric}" not in best:  # it was chosen by what training logs
        order = "step" if "step" in best else "epoch"
        best = next((row for row in validations if row[order] >= best[order]), validations[-1])
    return best


def moment_of(checkpoint: Path) -> Moment | None:
    """Return when a checkpoint was written; None if the file is missing or is not one of Lightning's.

    The archive that torch.save writes holds a pickle, in which an integer follows its key. So neither torch nor an
    unpickler, which could execute code, is needed.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            content = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile):  # ValueError: damaged
        return None
    found = []
    for key in (b"epoch", b"_batches_that_stepped"):
        text = re.escape(b"X" + len(key).to_bytes(4, "little") + key)
        # the opcodes BINUNICODE, BINPUT or LONG_BINPUT, and BININT1, BININT2 or BININT of pickle's protocol 2
        match = re.search(text + rb"(?:q.|r.{4})(?:K(.)|M(..)|J(.{4}))", content, re.DOTALL)
        if match is None:
            return None
        found.append(int.from_bytes(match[match.lastindex or 0], "little"))
    return Moment(*found)


def measurement(output: Path) -> Measured | None:
    """Return what a validation or test found, as its folder says it; None if it found nothing."""
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

    A test belongs to the checkpoint whose digest is in its results.json. Without a digest (a test by an earlier
    version), it belongs to best.ckpt unless that file is newer than the test's.

    Raises:
        RunError: The config is not YAML.
        OSError: The config cannot be read.
    """
    config, run = load_config(output), output.parents[1]
    try:
        found = dict(json.loads((output / RESULTS).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # the command is running, or was killed
        found = {}
    weights = str(setting(config, "ckpt_path") or setting(config, "model.init_args.pretrained"))
    name, *file = ("", "", *Path(weights).parts)[-3:]
    of_best = tuple(file) == BEST.parts and name in ("", run.name)
    is_old, digest = False, found.get("checkpoint_digest")
    if digest is not None and (run / BEST).is_file():
        same = digest == digest_of(run / BEST)
        of_best, is_old = of_best or same, not same and of_best  # the same under another name of the run, too
    elif of_best and (run / BEST).is_file():
        is_old = (run / BEST).stat().st_mtime > max(path.stat().st_mtime for path in output.iterdir())
    limit = setting(config, f"trainer.limit_{STAGES[output.parent.name]}_batches")
    return Circumstances(weights, found.get("epoch"), of_best, is_old, limit, _other_data(run, config, found))


def digest_of(checkpoint: Path) -> str:
    """Return a digest of the content of a checkpoint.

    torch.save writes a ZIP archive. The digest is that of its table of contents, which holds a CRC-32 of each tensor:
    fast for large files too.
    """
    if zipfile.is_zipfile(checkpoint):
        with zipfile.ZipFile(checkpoint) as archive:
            members = [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
        return hashlib.sha256(repr(members).encode()).hexdigest()
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_data(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two records of data, as run.json and results.json hold them, are of the same data.

    A record of an earlier version holds the ``index_digest`` as its ``digest``, and is compared by that alone.
    """
    if one.get("digest") == other.get("digest"):
        return True
    of_earlier = [(one.get("digest"), other.get("index_digest")), (one.get("index_digest"), other.get("digest"))]
    return any(digest and digest == index_digest for digest, index_digest in of_earlier)


def _other_data(run: Path, config: dict[str, Any], found: dict[str, Any]) -> str:
    """Return root and digest of the data of a validation or test, or "" if it is the run's data."""
    data, of_run = found.get("data") or {}, record.read(run).get("data") or {}
    root, digest = data.get("root") or str(setting(config, "data.init_args.root")), data.get("digest")
    if digest and of_run.get("digest"):
        same = same_data(data, of_run)
    else:  # results or a run of an earlier version
        keys = ("data.class_path", "data.init_args.root")
        before = config
        with suppress(RunError, OSError):  # the run's config is damaged, or the weights are of no run
            before = load_config(run) or config
        same = all(setting(config, key) == setting(before, key) for key in keys)
    return "" if same else f"{root} ({digest[:8]})" if digest else root


def measured(output: Path) -> str:
    """Return the same in words: "test 71.20% by checkpoints/best.ckpt"."""
    found = measurement(output)
    if found is None:
        return ""
    stage = STAGES[output.parent.name]
    metric = "" if found.metric == "acc" else "loss "
    return f"{stage} {metric}{shown(found.value, found.metric)} by {in_words(found.under, stage)}"


def in_words(under: Circumstances, stage: str = "test") -> str:
    """Return weights, other data and limit in words."""
    epoch = "" if under.epoch is None else f" of epoch {under.epoch}"
    data = f", on other data than the run's: {under.other_data}" if under.other_data else ""
    part = "" if under.limit is None else f", on a part of the images (limit_{stage}_batches {under.limit})"
    return f"{under.weights}{epoch}{data}{part}"


def age_in_words(under: Circumstances) -> str:
    """Return the epoch of a test whose checkpoint was replaced, in words."""
    epoch = "an unknown checkpoint" if under.epoch is None else f"epoch {under.epoch}"
    return f"tested at {epoch}; best.ckpt is newer"


def shown(value: float, metric: str) -> str:
    """Return an accuracy in percent, or a loss in four digits."""
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


def read_metrics(folder: Path, tags: Sequence[str]) -> list[dict[str, float]]:
    """Return the rows of metrics.csv that hold one of the tags, with ``epoch`` and ``step``, as numbers.

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
            rows.append({tag: float(cell) for tag, cell in cells if cell and tag in (*tags, *POSITION)})
    return [row for row in rows if "epoch" in row and row.keys() - POSITION]


def is_number(text: str) -> bool:
    """Tell whether a cell of metrics.csv holds a number, NaN among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True
