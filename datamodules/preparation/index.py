"""Read and write index files, which define the split: one ``relative/path.png label`` per line.

They may be edited by hand. A path may contain spaces and may be absolute; spaces or tabs separate it from its label. A
backslash is read as a slash on every system, so that index files from Windows can be used. Each path is listed once.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.errors import DataError

STAGES = ("train", "val", "test")
Entry = tuple[str, int]  # path relative to the folder of the images with forward slashes, and label
Entries = dict[str, list[Entry]]  # by stage

CLASSES = "classes.txt"  # next to index files: names of the classes, one per line, in the order of their labels

LINE = re.compile(r"([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])\s+([0-9]{1,6})\s*")  # path and label
UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ufeff\ud800-\udfff]|^\s|\s\Z|^\Z")  # in a path that would be read as another one


def index_path(folder: Path, stage: str) -> Path:
    """Return the path of the index file of a stage."""
    return folder / f"{stage}.txt"


def check_names(entries: Iterable[Entry]) -> None:
    """Raise DataError if an index file cannot hold the path of an entry."""
    for file, _ in entries:
        if UNSAFE.search(file):
            wanted = "file names in UTF-8 without backslashes, line ends and spaces at either end"
            raise DataError(f"Expected {wanted}, but got {file!r}. Rename the file.")


def read_index(path: Path) -> list[Entry]:
    """Return the entries of an index file, without checking that the images exist.

    Raises:
        DataError: The file is not UTF-8, or a line has no path, no label, or the same path as another line.
    """
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise DataError(f"{path}:{number}: Expected UTF-8, but got the byte {byte:#04x}. Save it as UTF-8.") from error
    entries: list[Entry] = []
    numbers: dict[str, int] = {}  # line of each path
    for number, line in enumerate(text.replace("\\", "/").split("\n"), start=1):
        line = line.lstrip("\ufeff \t")  # concatenated UTF-8 files may have several byte order marks
        if not line or line.isspace():
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}:{number}: Expected `relative/path.png label` with a label from 0 to 999999, but got "
                f"{line.strip()[:200]!r}. Correct the line, or the name of the file."
            )
        file, label = match.groups()
        if numbers.setdefault(file, number) != number:
            got = f"{file[:200]!r} is also in line {numbers[file]}"
            raise DataError(f"{path}:{number}: Expected each path once, but {got}. Delete one of the lines.")
        entries.append((file, int(label)))
    return entries


def read_classes(path: Path) -> list[str] | None:
    """Return the lines of ``classes.txt`` that are not empty; None if the file is missing.

    Raises:
        DataError: A name is repeated.
    """
    if not path.is_file():
        return None
    names = [line.strip() for line in path.read_text("utf-8-sig", "replace").split("\n") if line.strip()]
    if len(set(names)) < len(names):
        raise DataError(f"Expected each name once in {path}, but got {', '.join(names)}.")
    return names


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of the content of an index file."""
    return hashlib.sha256(content).hexdigest()


def text_of(entries: Iterable[Entry]) -> bytes:
    """Return the content of an index file with these entries, which ``check_names`` accepts."""
    return "".join(f"{file} {label}\n" for file, label in entries).encode()


def count_labels(entries: Sequence[Entry], class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of entries of each class; raise DataError for a label outside the classes."""
    counts = dict.fromkeys(class_names, 0)
    for file, label in entries:
        if not 0 <= label < len(class_names):
            raise DataError(f"Expected labels from 0 to {len(class_names) - 1}, but got {label} for {file}.")
        counts[class_names[label]] += 1
    return counts
