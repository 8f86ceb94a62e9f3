"""Lay out charts as SVG paths and ticks, with a description and a table of the values. Imports no torch."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from project.report.read import QUANTILES, Run
from project.runs.metrics import format_metric

LEFT, RIGHT, TOP, BOTTOM = 60, 342, 10, 168  # plot area, in CSS pixels of 360 x 210, a phone's width
MOST_ROWS = 60  # of a table of values

T = TypeVar("T")
Ticks = list[tuple[float, float]]  # pixel and value


class Line(NamedTuple):
    """A line of a chart; ``style`` selects colour and marker, ``run`` the dash."""

    name: str
    x: np.ndarray
    y: np.ndarray
    style: int = 0
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
    x, xticks = axis([line.x for line in lines], LEFT, RIGHT, most=6, whole=True)
    y, yticks = axis([line.y for line in lines], BOTTOM, TOP, most=4, edge=0.05)
    positions = sorted({float(value) for line in lines for value in line.x})
    shown = spread_evenly(positions, MOST_ROWS)
    cut = f" ({len(shown)} of {len(positions)} rows)" if len(shown) < len(positions) else ""
    values = [dict(zip(line.x.tolist(), line.y.tolist(), strict=True)) for line in lines]
    return Chart(
        title,
        xlabel,
        f"{title}, by {xlabel}. {' '.join(_words(line, metric) for line in lines)}",
        [(pixel, f"{value:g}") for pixel, value in xticks],
        [(pixel, f"{100 * value:.4g}%" if metric == "acc" else _tick(value)) for pixel, value in yticks],
        [(_path(x(line.x), y(line.y)), line) for line in lines],
        [note for line in lines if (note := not_finite(line, xlabel))],
        [f"{xlabel}{cut}", *(line.name for line in lines)],
        [[f"{x:.4g}", *(format_metric(each[x], metric) if x in each else "" for each in values)] for x in shown],
    )


def distribution_chart(title: str, quantiles: dict[int, list[float]]) -> Chart:
    """Return a chart of the quantiles of a distribution by epoch: median, 16% and 84%, minimum and maximum."""
    epochs, values = np.array(list(quantiles), float), np.array(list(quantiles.values()))
    columns = zip(QUANTILES, values.T, (5, 1, 0, 1, 5), strict=True)
    return line_chart(title, [Line(name, epochs, column, style) for name, column, style in columns], "epoch")


def axis(
    lines: Sequence[np.ndarray], start: float, end: float, most: int, edge: float = 0, whole: bool = False
) -> tuple[Callable[[np.ndarray], np.ndarray], Ticks]:
    """Return the function from values to pixels between start and end, and about ``most`` ticks at round values."""
    values = np.concatenate(lines)
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 1.0])
    low, high = values.min(), values.max()
    margin = edge * (high - low) if high > low else 0.5 * abs(high) or 0.5
    low, high = low - margin, high + margin
    power = 10 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * most >= high - low)
    step = math.ceil(step) if whole else step

    def pixels(values: np.ndarray) -> np.ndarray:
        return start + (values - low) / (high - low) * (end - start)

    ticks = np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step
    return pixels, list(zip(pixels(ticks).tolist(), ticks.tolist(), strict=True))


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
    return [items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)]


def _tick(value: float) -> str:
    """Return a number in at most seven characters, which fit beside an axis."""
    return f"{value / 1000:.4g}k" if abs(value) >= 1000 else f"{value:.3g}"


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Return the path of a line with a gap at values that are not finite; a single point is drawn as a dot."""
    path, command = "", "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        path += f"{command}{a:.1f} {b:.1f}{'h0' if command == 'M' else ''}" if math.isfinite(b) else ""
        command = "L" if math.isfinite(b) else "M"
    return path


def _words(line: Line, metric: str) -> str:
    """Return the first and the last value of a line."""
    ends = np.flatnonzero(np.isfinite(line.y))[[0, -1]] if np.isfinite(line.y).any() else ()
    values = [f"{format_metric(line.y[i], metric)} at {line.x[i]:.4g}" for i in ends]
    return f"{line.name}: {' to '.join(values) or 'never finite'}."
