"""Tables of classes and confusions from the files of a run or test. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

from project.report.read import Run

SHARES = ("recall", "precision", "f1", "confidence", "accuracy", "calibration_error")  # columns
MOST_CLASSES = 20  # a larger matrix of numbers is not legible
MOST_ROWS = 50
MOST_CONFUSIONS = 10
LETTERS = 16  # of a class name above a column of the matrix; the rows have the whole names
LONGEST = 3  # letters of class names that are written from left to right above a column
NOTHING = "\N{EN DASH}"


class Bar(NamedTuple):
    """A number in a table cell, with a bar in the background."""

    text: str
    share: float  # of the cell's width, 0 to 1


Cell = str | Bar


class Table(NamedTuple):
    """A table; the first cell of each row is the row header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""  # CSS class
    note: str = ""


def confusions(run: Run, stage: str, what: str) -> list[Table]:
    """Return the confusion matrix, if it has at most MOST_CLASSES classes, and the most frequent confusions."""
    file = f"confusion_matrix_{stage}.csv"
    names, counts = [], []
    for row in run.table(file):
        name, *cells = row.values()
        names.append(name)
        counts.append([int(cell) for cell in cells])
    if not names:
        return []
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    pairs = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    pairs.sort(key=lambda pair: -pair[0])  # stable: by class if equal
    frequent: list[list[Cell]] = [
        [f"{names[i]} → {names[j]}", f"{count}", Bar(f"{shares[i][j]:.1%}", shares[i][j])]
        for count, i, j in pairs[:MOST_CONFUSIONS]
    ]
    header = ["true → predicted", "images", "of the class"]
    note = f"A matrix of {len(names)} classes is too large for this page. It is in {file}."
    confusions = Table(f"Most frequent confusions, {what}", header, frequent)
    if len(names) > MOST_CLASSES:
        return [confusions._replace(note=note)]
    rows: list[list[Cell]] = [
        [name, *map(Bar, map(str, row), part), f"{part[i]:.1%}" if any(row) else NOTHING]
        for i, (name, row, part) in enumerate(zip(names, counts, shares, strict=True))
    ]
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    kind = "matrix upright" if max(map(len, names)) > LONGEST else "matrix"
    caption = f"Number of {what}; rows: true class, columns: predicted class"
    return [Table(caption, ["true \\ predicted", *short, "recall"], rows, kind), confusions]


def table_of(run: Run, file: str, caption: str, kind: str = "") -> list[Table]:
    """Return the table in a CSV file without its empty columns, if there is one."""
    rows = run.table(file)
    header = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    if not header:
        return []
    cells = [[_cell(name, row[name]) for name in header] for row in rows[:MOST_ROWS]]
    note = f"{MOST_ROWS} of {len(rows)} rows; {file} has all." if len(rows) > MOST_ROWS else ""
    return [Table(caption, header, cells, kind, note)]


def _cell(column: str, text: str) -> Cell:
    if column in SHARES and text:
        return Bar(f"{float(text):.2%}", float(text))
    if column == "loss" and text:
        return f"{float(text):.4g}"
    return text or NOTHING  # undefined, such as the precision of a class that is never predicted
