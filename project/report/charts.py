"""Lay out charts as SVG paths and ticks, with a description and a table of the values. Imports no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from project.report.read import QUANTILES, Run
from project.runs.metrics import format_metric

WIDTH, HEIGHT = 360, 210  # CSS pixels: a phone's width, so that text is not scaled there
LEFT, RIGHT, BOTTOM, TOP = 60, 18, 42, 10  # margins
MOST_ROWS = 60  # of a table of values
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten

T = TypeVar("T")


class Line(NamedTuple):
    """A line of a chart; ``style`` selects colour and marker, ``run`` the dash."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: int
    run: int = 0


class Chart(NamedTuple):
    """A chart in CSS pixels, for the macro ``charts`` of parts.html."""

    title: str
    xlabel: str
    label: str  # description for screen readers
    xticks: list[tuple[float, str]]
    yticks: list[tuple[float, str]]
    paths: list[tuple[str, Line]]
    notes: list[str]  # where lines are NaN or Inf
    header: list[str]  # of the table of values
    rows: list[list[str]]


def line_of(run: Run, tag: str, unit: str, name: str, style: int = 0, number: int = 0) -> Line:
    """Return a scalar as a line over a unit, "epoch" or "step"."""
    steps, values = np.array(run.scalars[tag], float).T
    return Line(name, run.epochs(steps) if unit == "epoch" else steps, values, style, number)


def line_chart(title: str, lines: Sequence[Line], xlabel: str, metric: str = "") -> Chart:
    """Return a chart of lines; ``metric`` is "acc" for shares, which are printed in percent."""
    positions = sorted({float(x) for line in lines for x in line.x})
    shown = spread_evenly(positions, MOST_ROWS)
    cut = f" ({len(shown)} of {len(positions)} rows)" if len(shown) < len(positions) else ""
    values = [dict(zip(line.x.tolist(), line.y.tolist(), strict=True)) for line in lines]
    x, y = _scales(lines)
    return Chart(
        title,
        xlabel,
        f"{title}, by {xlabel}. {' '.join(_words(line, xlabel, metric) for line in lines)}",
        [(x(value), f"{value:g}") for value in x.ticks(6, whole=True)],
        [(y(value), f"{100 * value:.4g}%" if metric == "acc" else _tick(value)) for value in y.ticks(4)],
        [(_path(line, x, y), line) for line in lines],
        [note for line in lines if (note := not_finite(line, xlabel))],
        [f"{xlabel}{cut}", *(line.name for line in lines)],
        [[f"{x:.4g}", *(format_metric(each[x], metric) if x in each else "" for each in values)] for x in shown],
    )


def _tick(value: float) -> str:
    """Return a number in at most seven characters, which fit beside an axis."""
    return f"{value / 1000:.4g}k" if abs(value) >= 1000 else f"{value:.3g}"


def distribution_chart(title: str, quantiles: dict[int, list[float]]) -> Chart:
    """Return a chart of the quantiles of a distribution by epoch: median, 16% and 84%, minimum and maximum."""
    epochs, values = np.array(list(quantiles), float), np.array(list(quantiles.values()))
    columns = zip(QUANTILES, values.T, (5, 1, 0, 1, 5), strict=True)
    return line_chart(title, [Line(name, epochs, column, style) for name, column, style in columns], "epoch")


def not_finite(line: Line, xlabel: str) -> str:
    """Return a note about where a line is NaN or Inf, or "" if it is finite."""
    broken = ~np.isfinite(line.y)
    if not broken.any():
        return ""
    first = int(broken.argmax())
    when = "from" if broken[first:].all() else "first at"
    return f"{line.name} is not finite {when} {xlabel} {line.x[first]:.4g} ({broken.sum()} of {len(line.y)} values)."


def spread_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return all items, or ``most`` of them, evenly spaced from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


class _Scale(NamedTuple):
    """Map values from ``low`` to ``high`` to pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int, whole: bool = False) -> list[float]:
        """Return about ``most`` round values, or whole ones."""
        power = 10 ** math.floor(math.log10((self.high - self.low) / most))
        step = next(step for factor in STEPS if (step := factor * power) * most >= self.high - self.low)
        step = math.ceil(step) if whole else step
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _scales(lines: Sequence[Line]) -> tuple[_Scale, _Scale]:
    ranges = []
    for values in (np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])):
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        margin = 0.5 * abs(high) or 0.5 if high == low else 0.0
        ranges.append((low - margin, high + margin))
    (left, right), (low, high) = ranges
    edge = 0.05 * (high - low)
    return _Scale(left, right, LEFT, WIDTH - RIGHT), _Scale(low - edge, high + edge, HEIGHT - BOTTOM, TOP)


def _path(line: Line, x: _Scale, y: _Scale) -> str:
    """Return the path of a line with a gap at values that are not finite; a single point is drawn as a dot."""
    path, is_open = "", False
    for a, b in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if math.isfinite(b):
            path += f"{'L' if is_open else 'M'}{x(a):.1f} {y(b):.1f}" + ("" if is_open else "h0")
        is_open = math.isfinite(b)
    return path


def _words(line: Line, xlabel: str, metric: str) -> str:
    """Return the first, last, lowest and highest value of a line."""
    finite = np.isfinite(line.y)
    if not finite.any():
        return f"{line.name}: never finite."
    x, y = line.x[finite], line.y[finite]
    first, last, least, most = (f"{format_metric(y[i], metric)} at {x[i]:.4g}" for i in (0, -1, y.argmin(), y.argmax()))
    return f"{line.name}: {first}, {last}; lowest {least}, highest {most}."
