"""Render tables of classes, and mistakes with their images, from the files of a run directory."""

import csv
import io
import math
from pathlib import Path

from PIL import Image

from project.report.events import Picture
from project.report.markup import Bar, details, image, number, paragraph, table
from project.report.read import Run

WORDS = {"val": "validation", "test": "test"}
SHARES = ("recall", "precision", "f1", "confidence")  # columns
NUMBERS = (*SHARES, "images", "loss")  # other columns hold text, such as a class named "0.50" or "nan"
MOST_CLASSES = 20  # a larger matrix of numbers is not legible
MOST_ROWS = 50
MOST_CONFUSIONS = 10
SIDE, OPEN = 96, 12  # of images of mistakes: maximum side in pixels, number that is not collapsed
LETTERS = 16  # of a class name above a column of the matrix; the rows have the whole names
LONGEST = 3  # letters of class names that are written from left to right above a column
NOTHING = "\N{EN DASH}"


def class_report(run: Run, stage: str) -> str:
    """Return the table of classes."""
    return _table(run, f"class_report_{stage}.csv", f"Classes, {WORDS[stage]} images")


def mistakes(run: Run, stage: str) -> str:
    """Return the most confident mistakes: their images, and a collapsed table with their files."""
    title = f"Most confident mistakes, {WORDS[stage]} images"
    files = _table(run, f"mistakes_{stage}.csv", title, "words")
    if not files:
        return ""
    images = _images_of_mistakes(run, stage)
    shown, more = (f'<div class="gallery">{"".join(part)}</div>' for part in (images[:OPEN], images[OPEN:]))
    folded = details("More mistakes, and their files" if images[OPEN:] else "Their files", more + files)
    return f"<h3>{WORDS[stage].capitalize()} images</h3>{shown if images else ''}{folded}"


def _images_of_mistakes(run: Run, stage: str) -> list[str]:
    """Return the images of ``mistakes_<stage>.png``, one below the other, with the rows of the CSV file as captions."""
    file, rows = run.folder / f"mistakes_{stage}.png", run.table(f"mistakes_{stage}.csv")
    if not file.exists():  # a run of an earlier version
        return []
    figures = []
    with Image.open(file) as column:
        height = column.height // len(rows)
        for i, row in enumerate(rows):
            cell, content = column.crop((0, i * height, column.width, (i + 1) * height)), io.BytesIO()
            cell.thumbnail((SIDE, SIDE))
            cell.save(content, "PNG")
            sure = f"{float(row['confidence']):.0%}".replace("%", "\N{NO-BREAK SPACE}%")
            caption = f"true: {row['true']}, predicted: {row['predicted']} {sure}"
            figures.append(image(Picture(0, *cell.size, content.getvalue()), caption))
    return figures


def confusion_matrix(run: Run, stage: str) -> str:
    """Return the most frequent confusions, and the matrix if it has at most MOST_CLASSES classes."""
    file = run.folder / f"confusion_matrix_{stage}.csv"
    names, counts = _matrix(file)
    if not names:
        broken = f"`{file.name}` is incomplete: it is being written, or damaged."
        return paragraph(broken, "warning") if file.exists() else ""
    confusions = sorted(
        ((counts[i][j], i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i][j]),
        key=lambda confusion: -confusion[0],  # stable: by class if equal
    )
    rows: list[list[str | Bar]] = [
        [f"{names[i]} → {names[j]}", f"{count}", Bar(f"{count / sum(counts[i]):.1%}", count / sum(counts[i]))]
        for count, i, j in confusions[:MOST_CONFUSIONS]
    ]
    pairs = table(
        f"Most frequent confusions, {WORDS[stage]} images", ["true → predicted", "images", "of the class"], rows
    )
    if len(names) > MOST_CLASSES:
        return (
            paragraph(f"A matrix of {len(names)} classes is too large for this page. It is in `{file.name}`.", "note")
            + pairs
        )
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    cells: list[list[str | Bar]] = [
        [name, *(Bar(f"{n}", x) for n, x in zip(row, part, strict=True)), f"{part[i]:.1%}" if any(row) else NOTHING]
        for i, (name, row, part) in enumerate(zip(names, counts, shares, strict=True))
    ]
    caption = f"Number of {WORDS[stage]} images; rows: true class, columns: predicted class"
    short = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]
    kind = "matrix upright" if max(map(len, names)) > LONGEST else "matrix"
    return table(caption, ["true \\ predicted", *short, "recall"], cells, kind) + pairs


def has_matrix(run: Run, stage: str) -> bool:
    """Return whether ``confusion_matrix`` renders the matrix, so that its image would be redundant."""
    names, _ = _matrix(run.folder / f"confusion_matrix_{stage}.csv")
    return 0 < len(names) <= MOST_CLASSES


def _matrix(file: Path) -> tuple[list[str], list[list[int]]]:
    """Return class names and counts (rows true, columns predicted); empty if the file is missing or incomplete."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        counts = [[int(float(count)) for count in row[1:]] for row in rows]
    except (FileNotFoundError, ValueError):  # ValueError: empty, or cut within a number or a character
        return [], []
    names = header[1:]
    is_complete = [row[:1] for row in rows] == [[name] for name in names] and {len(row) for row in counts} == {
        len(names)
    }
    return (names, counts) if is_complete else ([], [])


def _table(run: Run, file: str, caption: str, kind: str = "") -> str:
    rows = run.table(file)
    if not rows:
        return ""
    header = list(rows[0])
    first = next((name for name in header if any(row[name] for row in rows)), header[0])
    header = [first, *(name for name in header if name != first and any(row[name] for row in rows))]
    cells = [[row[first], *(_cell(name, row[name]) for name in header[1:])] for row in rows[:MOST_ROWS]]
    cut = paragraph(f"{MOST_ROWS} of {len(rows)} rows; `{file}` has all.", "note") if len(rows) > MOST_ROWS else ""
    return f"<div>{table(caption, header, cells, kind)}{cut}</div>"


def _cell(column: str, text: str) -> str | Bar:
    if column not in NUMBERS:
        return text
    try:
        value = float(text)
    except ValueError:
        return text or NOTHING  # undefined, such as the precision of a class that is never predicted
    if column in SHARES and math.isfinite(value):
        return Bar(number(value, "acc"), value)
    return text if text.isdigit() else number(value)
