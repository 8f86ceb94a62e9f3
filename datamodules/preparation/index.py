"""Read and write index files, which define the split: one ``relative/path.png label`` per line.

They may be edited by hand. A path may contain spaces and may be absolute; spaces or tabs separate it from its label. A
backslash is read as a slash on every system, so that index files from Windows can be used. Each path is listed once.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from atomic_files import write_atomically
from datamodules.errors import DataError

STAGES = ("train", "val", "test")
Entry = tuple[str, int]  # path relative to the folder of the images with forward slashes, and label
Entries = dict[str, list[Entry]]  # by stage

LABEL = re.compile(r"[0-9]{1,6}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # in a path: a lost line end, a third column, or a binary file


def index_path(folder: Path, stage: str) -> Path:
    """Return the path of the index file of a stage."""
    return folder / f"{stage}.txt"


def check_entries(path: Path, entries: list[Entry]) -> None:
    """Check that entries can be written to an index file and read back unchanged.

    Raises:
        DataError: One would change, such as a path that ends in a space or contains a backslash.
    """
    if _is_read_back(entries):
        return
    for file, label in entries:
        if not _is_read_back([(file, label)]):
            raise DataError(
                "Expected labels from 0 to 999999, and file names in UTF-8 without backslashes, line ends, and spaces "
                f"at either end, for {path}, but got {file!r} with label {label!r}. Rename the file."
            )
    raise DataError(f"Expected each path once for {path}, but got one twice.")


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Write an index file of entries that ``check_entries`` accepts."""
    with write_atomically(path) as partial:
        partial.write_bytes(text_of(entries).encode())


def read_index(path: Path) -> list[Entry]:
    """Return the entries of an index file, without checking that the images exist.

    Raises:
        DataError: The file cannot be read, or a line has no path, no label, or the same path as another line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Expected an index file, but {path} cannot be read: {error.strerror}. Restore it, or delete dataset.json "
            "and the other index files to create all again."
        ) from error
    return _parse(path, content)


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of the content of an index file."""
    return hashlib.sha256(content).hexdigest()


def text_of(entries: Iterable[Entry]) -> str:
    """Return the content of an index file with these entries."""
    return "".join(f"{file} {label}\n" for file, label in entries)


def count_labels(entries: Sequence[Entry], class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of entries of each class.

    Raises:
        DataError: A label is outside the classes.
    """
    counts = dict.fromkeys(class_names, 0)
    for file, label in entries:
        if not 0 <= label < len(class_names):
            raise DataError(
                f"Expected labels from 0 to {len(class_names) - 1}, but got {label} for {file}. Correct its line."
            )
        counts[class_names[label]] += 1
    return counts


def _is_read_back(entries: list[Entry]) -> bool:
    """Return whether entries can be written to an index file and read back unchanged."""
    try:
        return _parse(Path(), text_of(entries).encode()) == entries
    except (DataError, UnicodeEncodeError):
        return False


def _parse(path: Path, content: bytes) -> list[Entry]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        got = f"the byte {content[error.start]:#04x}"
        raise DataError(f"{path}:{number}: Expected UTF-8, but got {got}. Save the file as UTF-8.") from error
    entries: list[Entry] = []
    numbers: dict[str, int] = {}  # line of each path
    labels: dict[str, int] = {}  # parsed labels; most of the time goes into lines
    for number, line in enumerate(text.replace("\\", "/").split("\n"), start=1):
        words = line.lstrip("\ufeff \t").rsplit(None, 1)  # concatenated UTF-8 files may have several byte order marks
        if not words:
            continue
        file, label = words[0], words[-1]
        if label not in labels and LABEL.fullmatch(label):
            labels[label] = int(label)
        if len(words) < 2 or label not in labels or (not file.isprintable() and CONTROL.search(file)):
            raise DataError(
                f"{path}:{number}: Expected `relative/path.png label` with a label from 0 to 999999, but got "
                f"{line.strip()[:200]!r}. Correct the line, or the name of the file."
            )
        if numbers.setdefault(file, number) != number:
            raise DataError(
                f"{path}:{number}: Expected each path once, but got {file[:200]!r} with label {label}, and in line "
                f"{numbers[file]} with label {dict(entries)[file]}. Delete one of the two lines."
            )
        entries.append((file, labels[label]))
    return entries
