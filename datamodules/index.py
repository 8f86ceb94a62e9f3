"""Index files: one ``relative/path.png label`` a line. They are the split, and may be edited by hand."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.errors import DataError

STAGES = ("train", "val", "test")
Entry = tuple[str, int]  # path relative to the data root with forward slashes, and label


def index_path(root: Path, stage: str) -> Path:
    """Return where the index file of a stage lies."""
    return root / f"{stage}.txt"


def write_text(path: Path, text: str) -> None:
    """Write a file beside its target and rename it, so that no reader ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Write an index file."""
    write_text(path, "".join(f"{file} {label}\n" for file, label in entries))


def read_index(path: Path) -> list[Entry]:
    """Return the entries of an index file; paths may hold spaces, blank lines are passed over.

    Raises:
        DataError: A line has no path or no label.
    """
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(" ")
        if not file or not label.isdecimal():
            raise DataError(f"{path}:{number}: expected `relative/path.png label`, but got {line.strip()!r}.")
        entries.append((file.rstrip(), int(label)))
    return entries


def digests_of(root: Path) -> dict[str, str]:
    """Return the SHA-256 of the three index files, by file name."""
    paths = [index_path(root, stage) for stage in STAGES]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def count_labels(entries: Sequence[Entry], class_names: Sequence[str]) -> dict[str, int]:
    """Return how many entries each class has.

    Raises:
        DataError: A label has no class.
    """
    counts = dict.fromkeys(class_names, 0)
    for file, label in entries:
        if label >= len(class_names):
            raise DataError(f"Expected labels of 0 to {len(class_names) - 1}, but got {label} for {file}.")
        counts[class_names[label]] += 1
    return counts
