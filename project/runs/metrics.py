"""Read metrics.csv, and identify checkpoints and data. Imports no torch."""

import csv
import hashlib
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

METRICS = "metrics.csv"
PER_EPOCH = ("train/loss", "train/acc", "val/loss", "val/acc")  # logged at the last step of an epoch
POSITION = ("epoch", "step")  # columns of metrics.csv


def read_metrics(folder: Path, tags: Sequence[str]) -> list[dict[str, float]]:
    """Return the rows of metrics.csv that have a value for one of the tags, with ``epoch`` and ``step``, as numbers.

    Damaged rows, and an incomplete row at the end of the file, are left out.
    """
    try:
        text = (folder / METRICS).read_text(errors="replace")
    except FileNotFoundError:
        return []
    reader = csv.reader(text.rpartition("\n")[0].split("\n"))
    header = next(reader, [])
    columns = {tag: header.index(tag) for tag in (*POSITION, *tags) if tag in header}
    rows = []
    for cells in reader:
        with suppress(ValueError):  # not a number
            if len(cells) == len(header):
                rows.append({tag: float(cells[i]) for tag, i in columns.items() if cells[i]})
    return [row for row in rows if row.keys() > {*POSITION}]


def format_metric(value: float, metric: str) -> str:
    """Format an accuracy in percent, or a loss with four digits."""
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


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
