"""Split images by CSV files, which list the path and the label of each image."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import DataError, first_few
from datamodules.preparation.image_finder import Images
from datamodules.preparation.index import CLASSES, STAGES, Entries, read_classes
from datamodules.preparation.layout import class_folders, complete, stages_in
from datamodules.reading.decode import printable

SUFFIXES = (".csv", ".tsv")
# names of columns in lower case without punctuation
PATHS = {"path", "file", "filename", "filepath", "image", "imagename", "imagepath", "imageid", "img", "id", "idcode"}
LABELS = {"label", "labels", "class", "classname", "category", "target", "species"}
WHOLE = re.compile(r"([+-]?[0-9]{1,9})(\.0*)?")  # pandas writes integers as 1.0 if one is missing


class Row(NamedTuple):
    """The path and label of an image, and the number of their line."""

    line: int
    path: str
    label: str


def find_tables(root: Path) -> dict[str, Path]:
    """Return the CSV file of each stage, such as ``train.csv``, in a folder or its only folder; empty without train.

    ``labels.csv`` is that of train.

    Raises:
        DataError: A stage has several.
    """
    tables: dict[str, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        stages = ["train"] if path.stem.lower() == "labels" else stages_in(path.stem)
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or len(stages) != 1:
            continue
        if other := tables.get(stages[0]):
            raise DataError(f"Expected one CSV file for {stages[0]}, but got {other} and {path}. Move one away.")
        tables[stages[0]] = path
    if "train" in tables:
        return tables
    inner = class_folders(root) if root.is_dir() else []
    return find_tables(root / inner[0]) if len(inner) == 1 and not (root / inner[0]).is_symlink() else {}


def divide_tables(
    tables: Mapping[str, Path],
    root: Path,
    fractions: Sequence[float],
    seed: int,
    columns: Sequence[str] | None = None,
    skip: bool = False,
) -> tuple[Entries, list[str]]:
    """Split images into "train", "val" and "test" by the CSV files of stages; return also the name of each label.

    The names are those in ``classes.txt`` next to that of train, or else all labels, sorted. Integers may be positions
    in ``classes.txt``, from 0 or from 1; otherwise, they are names. Missing stages are split off from train.

    Args:
        tables: See ``find_tables``.
        root: Folder of the images, to which the paths of the result are relative.
        fractions: Fractions of train, val and test.
        seed: Seed of the split.
        columns: Names of the columns of paths and labels; by default, known ones.
        skip: Whether to exclude missing images instead of raising an error.

    Raises:
        DataError: A CSV file cannot be read, or has a wrong line, a missing image, or a label that train has not.
    """
    images, labels = Images(root), dict[str, dict[str, str]]()  # labels of files, by stage
    for stage in [stage for stage in STAGES if stage in tables]:
        if (rows := read_table(tables[stage], columns, images, stage == "train")) is not None:
            labels[stage] = label_files(tables[stage], rows, images, skip)
    everywhere: dict[str, str] = {}
    for file, label in [pair for of_stage in labels.values() for pair in of_stage.items()]:
        if everywhere.setdefault(file, label) != label:
            raise DataError(f"Expected one label for {file}, but got {everywhere[file]} and {label}.")
    names, number_of = number_labels(labels, tables["train"])
    parts = {stage: sorted((file, number_of[label]) for file, label in part.items()) for stage, part in labels.items()}
    return complete(parts, fractions, seed), names


def read_table(path: Path, columns: Sequence[str] | None, images: Images, is_train: bool) -> list[Row] | None:
    """Return the rows of a CSV file; None if it has no column of labels and is not that of train.

    The first line names the columns, unless it is one of two cells that name no known column, but an image.
    """
    lines = list(read_lines(path))
    if not lines:
        raise DataError(f"Expected a path and a label in each line of {path}, but it is empty.")
    header = lines[0][1]
    names = [re.sub(r"[^a-z]", "", cell.lower()) for cell in header]
    places = [[i for i, name in enumerate(names) if name in known] for known in (PATHS, LABELS)]
    if columns is not None:
        places = [[i for i, cell in enumerate(header) if cell == name] for name in columns]
    elif len(header) == 2 and not any(places):
        places[0] = [i for i, cell in enumerate(header) if images.find(cell, path)][:1]
        lines.insert(0, lines[0])  # no header
    if columns is None and len(header) == 2 and sorted(map(len, places)) == [0, 1]:  # one gives the other
        places = [place or [1 - sum(map(sum, places))] for place in places]
    if not is_train and len(places[0]) == 1 and not places[1]:
        rank_zero_info(f"{path} has no labels, so it is not used. `predict` classifies its images.")
        return None
    if list(map(len, places)) != [1, 1]:
        wanted = "one of paths and one of labels" if columns is None else " and ".join(columns)
        got = first_few(list(map(printable, header)))
        raise DataError(
            f"Expected columns {wanted} in the first line of {path}, but got {got}. "
            "Correct it, or name the two columns, such as --data.csv_columns '[file, species]'."
        )
    for line, cells in lines:
        if len(cells) != len(header):
            got = f"{len(cells)} columns, not {len(header)} as in the first line"
            raise DataError(f"{path}:{line}: Expected a path and a label, but got {got}. Quote fields with separators.")
    ((of_path,), (of_label,)) = places
    return [Row(line, cells[of_path], cells[of_label]) for line, cells in lines[1:]]


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not empty; most cells decide what separates the first."""
    try:
        text = path.read_text("utf-8-sig")
        first = text.lstrip().partition("\n")[0]
        separator = max(",;\t", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
        lines = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
        for cells in lines:
            if any(cell := [cell.strip() for cell in cells]):
                yield lines.line_num, cell
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path}: Expected UTF-8, but got the byte {byte:#04x}. Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num}: Expected CSV, but {error}. Check the quotes.") from error


def label_files(table: Path, rows: Sequence[Row], images: Images, skip: bool) -> dict[str, str]:
    """Return the label of each image of a CSV file."""
    labels: dict[str, str] = {}
    missing = []
    for line, path, label in rows:
        place = f"{table}:{line}: Expected"
        if not path or not label:
            raise DataError(f"{place} a path and a label, but got {path!r} and {label!r}. Add it, or delete the line.")
        found = images.find(path, table)
        if len(found) > 1:
            raise DataError(f"{place} one image, but {path!r} may be {first_few(found)}. Write more of its path.")
        if not found:
            missing.append(printable(path))
        elif (other := labels.setdefault(found[0], label)) != label:
            raise DataError(f"{place} one label for each image, but {found[0]} is {other!r} and {label!r}.")
    if missing:
        what = f"{len(missing)} of {len(rows)} images of {table} are missing: {first_few(missing)}"
        if not skip:
            raise DataError(
                f"Expected paths that are absolute, or relative to {table.parent} or a folder in {images.root}, but "
                f"{what}. Correct them, or exclude such images with --data.on_bad_image skip."
            )
        rank_zero_info(f"{what}. They are excluded.")
    if repeated := len(rows) - len(missing) - len(labels):
        rank_zero_info(f"{repeated} lines of {table} repeat others; each image is used once.")
    return labels


def number_labels(labels: Mapping[str, Mapping[str, str]], table: Path) -> tuple[list[str], dict[str, int]]:
    """Return the names of the classes, and the number of each label of the CSV files."""
    texts = {stage: set(part.values()) for stage, part in labels.items()}
    whole = all(WHOLE.fullmatch(text) for part in texts.values() for text in part)
    name_of = {
        text: str(int(text.partition(".")[0])) if whole else " ".join(text.split())
        for part in texts.values()
        for text in part
    }
    known = {name_of[text] for text in texts["train"]}
    for stage, part in texts.items():
        if unknown := sorted({name_of[text] for text in part} - known):
            raise DataError(
                f"Expected labels of {table} in the CSV file of {stage}, but got {first_few(unknown)}. Correct "
                "them, or add images of these classes to train."
            )
    names = sorted(known, key=int) if whole else sorted(known)
    given = read_classes(table.with_name(CLASSES))
    if given and not known.issubset(given):
        first = int(names[0]) if whole else -1
        if first not in (0, 1) or names != [str(first + i) for i in range(len(given))]:
            raise DataError(
                f"Expected the names in {table.with_name(CLASSES)}, or all their positions from 0 or from 1, as labels "
                f"in {table}, but got {first_few(sorted(known - set(given)))}."
            )
        name_of = {text: given[int(name) - first] for text, name in name_of.items()}
    names = given or names
    return names, {text: names.index(name) for text, name in name_of.items()}
