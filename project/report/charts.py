"""Draw charts with Matplotlib; the page's style sets their colours. Imports no torch."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from project.report.events import MEDIAN
from project.report.legend import MARKERS, Line, legend, line_table, line_text, not_finite, spread_evenly
from project.report.markup import details, escape, number, paragraph, table
from project.report.svg import COLOURS, GRID, INK, to_svg

WIDTH, FONT = 360, 12  # CSS pixels; the width of a phone, so that text is not scaled there
LEFT, RIGHT, BOTTOM, TOP = 58, 18, 42, 10  # margins, CSS pixels
NAMES = 165  # left margin of a dot chart, CSS pixels
LETTERS = 24  # characters that fit in this margin
ROW = 17  # of a dot chart, CSS pixels
NARROW = 100  # ratio of largest to smallest value; below it, powers of ten give too few ticks
MOST_NAMES = 60  # rows of a dot chart
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)))  # of the first run and of the second
MOST_MARKERS = 40  # points of a line; more markers would overlap
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": FONT,
    "text.parse_math": False,
}


class Charts:
    """Draws charts whose ids are unique within a page."""

    def __init__(self) -> None:
        self._prefixes = (f"c{number}" for number in itertools.count(1))

    def lines(self, title: str, lines: Sequence[Line], xlabel: str, metric: str = "") -> str:
        """Return a chart of lines, with notes about NaN and Inf, and a table of the values.

        Args:
            title: Title of the chart, with the unit of ``y``.
            lines: Lines; at most ``len(COLOURS)`` styles.
            xlabel: Unit of the lines' ``x``.
            metric: "acc" to print shares in percent.
        """
        with _axes(210, xlabel) as axes:
            for line in lines:
                y = np.where(np.isfinite(line.y), line.y, np.nan)
                marker = MARKERS[line.style] if len(line.x) <= MOST_MARKERS else ""
                options: dict[str, Any] = {
                    "color": COLOURS[line.style],
                    "marker": marker,
                    "linestyle": DASHES[line.run],
                }
                options |= {"markerfacecolor": "none"} if line.run else {}
                axes.plot(line.x, y, markersize=4, linewidth=1.7, clip_on=False, **options)
            if metric == "acc":
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
            words = " ".join(line_text(line, xlabel, metric) for line in lines)
            svg = to_svg(_figure_of(axes), f"{title}, by {xlabel}. {words}", next(self._prefixes))
        broken = "".join(paragraph(text, "warning") for line in lines if (text := not_finite(line, xlabel)))
        keys = "" if [line.name for line in lines] == [title] else legend(lines)
        return _figure(title, f"{keys}{svg}{broken}{line_table(title, lines, xlabel, metric)}")

    def bands(self, title: str, x: np.ndarray, spread: np.ndarray, xlabel: str) -> str:
        """Return a chart of a distribution over time: its median, and bands half a standard deviation wide.

        Args:
            title: Name of the tensor.
            x: Epochs or steps ``(N,)``.
            spread: Quantiles ``(N, 9)`` at ``events.QUANTILES``.
            xlabel: Unit of ``x``.
        """
        label = (
            f"{title}, by {xlabel}: median {number(spread[0, MEDIAN])} at {number(x[0])}, "
            f"{number(spread[-1, MEDIAN])} at {number(x[-1])}; at the end from {number(spread[-1, 0])} to "
            f"{number(spread[-1, -1])}."
        )
        if len(x) == 1:  # a band needs a width
            x, spread = np.array([x[0] - 0.3, x[0] + 0.3]), np.repeat(spread, 2, axis=0)
        with _axes(150, xlabel) as axes:
            for i in range(MEDIAN):
                axes.fill_between(x, spread[:, i], spread[:, -1 - i], color=COLOURS[0], alpha=0.22, linewidth=0)
            axes.plot(x, spread[:, MEDIAN], color=INK, linewidth=1.2)
            svg = to_svg(_figure_of(axes), label, next(self._prefixes))
        return _figure(title, svg)

    def dots(
        self, title: str, names: Sequence[str], series: dict[str, Sequence[float]], guideline: float | None = None
    ) -> str:
        """Return a chart with a row for each name and a dot for each series, on a logarithmic scale."""
        rows = spread_evenly(range(len(names)), MOST_NAMES)
        lines = [Line(name, np.array([]), np.array(y, float), style) for style, (name, y) in enumerate(series.items())]
        with _axes(len(rows) * ROW + BOTTOM + TOP, "", NAMES) as axes:
            for line in reversed(lines):
                y = np.where(np.isfinite(line.y) & (line.y > 0), line.y, np.nan)[rows]
                colour = COLOURS[line.style]
                axes.plot(y, range(len(rows)), color=colour, marker=MARKERS[line.style], linestyle="", markersize=6)
            axes.set_xscale("log")
            known = [value for line in lines for value in line.y if math.isfinite(value) and value > 0]
            known += [guideline] if guideline is not None else []
            if known:
                axes.set_xlim(min(known) / 2, max(known) * 2)
            narrow = bool(known) and max(known) / min(known) < NARROW
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
            if guideline is not None:
                axes.axvline(guideline, color=INK, linestyle=(0, (2, 2)), linewidth=1)
            axes.set_yticks([])  # drawing names as tick labels takes twice as long
            for i, row in enumerate(rows):
                axes.axhline(i, color=GRID, linewidth=0.6, zorder=0)
                axes.text(
                    -0.03,
                    i,
                    _short(names[row]),
                    color=INK,
                    ha="right",
                    va="center",
                    transform=axes.get_yaxis_transform(),
                )
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _scientific(value, 0)))
            axes.minorticks_off()
            words = " ".join(
                f"{line.name}: {number(line.y[0])} in {names[0]}, {number(line.y[-1])} in {names[-1]}."
                for line in lines
            )
            svg = to_svg(_figure_of(axes), f"{title}, from input to output. {words}", next(self._prefixes))
        cut = (
            paragraph(f"{len(rows)} of {len(names)} parameters are drawn; the table has all.")
            if len(rows) < len(names)
            else ""
        )
        cells = ([name, *(number(line.y[i]) for line in lines)] for i, name in enumerate(names))
        numbers = details("Numbers", table(title, ["parameter", *series], cells))
        return _figure(title, f"{legend(lines, stroke=False)}{svg}{cut}{numbers}")


@contextmanager
def _axes(height: float, xlabel: str, left: float = LEFT) -> Iterator[Axes]:
    """Yield axes with fixed margins: Matplotlib's layouts depend on a font that the page may not have."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)  # an SVG has 72 units an inch
        figure.patch.set_visible(False)
        size = ((WIDTH - left - RIGHT) / WIDTH, (height - BOTTOM - TOP) / height)
        axes = figure.add_axes((left / WIDTH, BOTTOM / height, *size))
        axes.patch.set_visible(False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.tick_params(which="both", bottom=False, left=False, labelcolor=INK)  # the grid replaces the ticks
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(xlabel, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        yield axes


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _figure(title: str, content: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{content}</figure>"


def _tick(value: float) -> str:
    """Format a number in few characters: "-2.5e-4" instead of "-0.00025"."""
    if value and abs(value) < 1e-2:
        return _scientific(value, 1)
    return f"{value:.4g}"


def _scientific(value: float, digits: int) -> str:
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"
