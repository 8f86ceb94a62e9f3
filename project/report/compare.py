"""Compare the configs and results of two runs."""

import math

from project.report.markup import number, paragraph, table
from project.report.outcome import numbers
from project.report.read import Run
from project.runs.config import EXPECTED, differences

NOTHING = "\N{EN DASH}"


def config_differences(a: Run, b: Run) -> str:
    """Return a table of the differences between the configs of two runs."""
    rows = [(key, left, right, EXPECTED.get(key, "")) for key, left, right in differences(a.config, b.config)]
    if not rows:
        return paragraph("The two configs are the same.")
    return table("Settings that differ", ["setting", "A", "B", "expected to differ"], rows, "text")


def outcome_differences(a: Run, b: Run) -> str:
    """Return a table of the results of two runs."""
    return table("Results", ["quantity", "A", "B", "B minus A"], outcome_rows(a, b))


def outcome_rows(a: Run, b: Run) -> list[list[str]]:
    """Return (name, value of A, value of B, B minus A) of each result of two runs."""
    left, right = numbers(a), numbers(b)
    rows = []
    for name in dict.fromkeys([*left, *right]):
        shown = [number(*values[name]) if name in values else NOTHING for values in (left, right)]
        both = name in left and name in right
        difference = right[name][0] - left[name][0] if both else math.nan
        sign = "+" if difference > 0 else ""
        metric = (left.get(name) or right[name])[1]
        rows.append([name, *shown, f"{sign}{number(difference, metric)}" if math.isfinite(difference) else NOTHING])
    return rows
