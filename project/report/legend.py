"""Format the legend of a chart, its description as text, and its values as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from project.report.markup import details, escape, number, table

MARKERS = "os^DvP"  # as many as COLOURS
MOST_ROWS = 60  # of the table beneath a chart
SHAPES = {
    "o": '<circle cx="15" cy="6" r="4"/>',
    "s": '<rect x="11" y="2" width="8" height="8"/>',
    "^": '<path d="M15 1l5 9h-10z"/>',
    "D": '<path d="M15 1l5 5l-5 5l-5-5z"/>',
    "v": '<path d="M15 11l5-9h-10z"/>',
    "P": '<path d="M13 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>',
}

T = TypeVar("T")


@dataclass
class Line:
    """A line of a chart; ``style`` selects colour and marker, ``run`` the dash."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: int
    run: int = 0


def legend(lines: Sequence[Line], stroke: bool = True) -> str:
    """Return the legend as HTML, which wraps, unlike SVG."""
    keys = []
    for line in lines:
        dash = ' stroke-dasharray="7 3"' if line.run else ""
        drawn = f'<path d="M0 6h30"{dash}/>' if stroke else ""
        hollow = ";fill:none" if line.run else ""
        style = f"--key:var(--series{line.style}){hollow}"
        key = f'<svg viewBox="0 0 30 12" style="{style}" aria-hidden="true">{drawn}'
        keys.append(f"<li>{key}{SHAPES[MARKERS[line.style]]}</svg>{escape(line.name)}</li>")
    return f'<ul class="legend">{"".join(keys)}</ul>'


def not_finite(line: Line, xlabel: str) -> str:
    """Return a note about where a line is NaN or Inf, or "" if it is finite."""
    broken = ~np.isfinite(line.y)
    if not broken.any():
        return ""
    first = int(broken.argmax())
    when = "from" if broken[first:].all() else "first at"
    return (
        f"{line.name} is not finite {when} {xlabel} {number(line.x[first])} ({broken.sum()} of {len(line.y)} values)."
    )


def line_text(line: Line, xlabel: str, metric: str) -> str:
    """Return the first, last, lowest and highest value of a line as text, for screen readers."""
    finite = np.isfinite(line.y)
    if not finite.any():
        return f"{line.name}: never finite."
    x, y = line.x[finite], line.y[finite]
    low, high = y.argmin(), y.argmax()
    first, last, least, most = (number(value, metric) for value in (y[0], y[-1], y[low], y[high]))
    return (
        f"{line.name}: {first} at {xlabel} {number(x[0])}, {last} at {xlabel} {number(x[-1])}; "
        f"lowest {least} at {number(x[low])}, highest {most} at {number(x[high])}."
    )


def line_table(title: str, lines: Sequence[Line], xlabel: str, metric: str) -> str:
    """Return a collapsed table of the values of all lines."""
    positions = sorted({float(x) for line in lines for x in line.x})
    shown = spread_evenly(positions, MOST_ROWS)
    values = [dict(zip(line.x.tolist(), line.y.tolist(), strict=True)) for line in lines]
    rows = [
        [number(x), *(number(series[x], metric) if x in series else "" for series in values)] for x in shown
    ]  # fmt: skip
    cut = f" ({len(shown)} of {len(positions)} rows)" if len(shown) < len(positions) else ""
    return details("Numbers", table(f"{title}{cut}", [xlabel, *(line.name for line in lines)], rows))


def spread_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return all items, or ``most`` of them, evenly spaced from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
