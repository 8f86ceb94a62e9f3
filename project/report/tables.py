"""Tables of classes and confusions, and images of mistakes, from the files of a run or test. Imports no torch."""

import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from project.report.read import Picture, Run, embedded

WORDS = {"val": "validation", "test": "test"}
SHARES = ("recall", "precision", "f1", "confidence")  # columns
MOST_CLASSES = 20  # a larger matrix of numbers is not legible
MOST_ROWS = 50
MOST_CONFUSIONS = 10
SIDE = 96  # maximum side of the image of a mistake, pixels
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


def mistakes(run: Run, stage: str) -> list[Picture]:
    """Return the images of the most confident mistakes."""
    file, rows = run.folder / f"mistakes_{stage}.png", run.table(f"mistakes_{stage}.csv")
    if not rows or not file.exists():
        return []
    pictures = []
    with Image.open(file) as column:  # the images, one below the other
        height = column.height // len(rows)
        for i, row in enumerate(rows):
            cell, content = column.crop((0, i * height, column.width, (i + 1) * height)), io.BytesIO()
            cell.thumbnail((SIDE, SIDE))
            cell.save(content, "PNG")
            sure = f"{float(row['confidence']):.0%}".replace("%", "\N{NO-BREAK SPACE}%")
            caption = f"true: {row['true']}, predicted: {row['predicted']} {sure}"
            pictures.append(embedded(cell, content.getvalue(), caption))
    return pictures


def confusions(run: Run, stage: str) -> list[Table]:
    """Return the confusion matrix, if it has at most MOST_CLASSES classes, and the most frequent confusions."""
    file = f"confusion_matrix_{stage}.csv"
    rows = [list(row.values()) for row in run.table(file)]
    if not rows:
        return []
    names = [row[0] for row in rows]
    counts = [[int(float(cell)) for cell in row[1:]] for row in rows]
    totals = [max(sum(row), 1) for row in counts]
    shares = [[count / total for count in row] for row, total in zip(counts, totals, strict=True)]
    pairs = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    pairs.sort(key=lambda pair: -pair[0])  # stable: by class if equal
    frequent: list[list[Cell]] = [
        [f"{names[i]} → {names[j]}", f"{count}", Bar(f"{shares[i][j]:.1%}", shares[i][j])]
        for count, i, j in pairs[:MOST_CONFUSIONS]
    ]
    caption, header = f"Most frequent confusions, {WORDS[stage]} images", ["true → predicted", "images", "of the class"]
    if len(names) > MOST_CLASSES:
        note = f"A matrix of {len(names)} classes is too large for this page. It is in {file}."
        return [Table(caption, header, frequent, note=note)]
    cells: list[list[Cell]] = [
        [name, *map(Bar, map(str, row), part), f"{part[i]:.1%}" if any(row) else NOTHING]
        for i, (name, row, part) in enumerate(zip(names, counts, shares, strict=True))
    ]
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    kind = "matrix upright" if max(map(len, names)) > LONGEST else "matrix"
    what = f"Number of {WORDS[stage]} images; rows: true class, columns: predicted class"
    return [Table(what, ["true \\ predicted", *short, "recall"], cells, kind), Table(caption, header, frequent)]


def table_of(run: Run, file: str, caption: str, kind: str = "") -> list[Table]:
    """Return the table in a CSV file without its empty columns, if there is one."""
    rows = run.table(file)
    header = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    if not header:
        return []
    cells = [[row[header[0]], *(_cell(name, row[name]) for name in header[1:])] for row in rows[:MOST_ROWS]]
    note = f"{MOST_ROWS} of {len(rows)} rows; {file} has all." if len(rows) > MOST_ROWS else ""
    return [Table(caption, header, cells, kind, note)]


def _cell(column: str, text: str) -> Cell:
    if column in SHARES and text:
        return Bar(f"{float(text):.2%}", float(text))
    if column == "loss" and text:
        return f"{float(text):.4g}"
    return text or NOTHING  # undefined, such as the precision of a class that is never predicted
