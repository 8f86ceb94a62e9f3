"""What differs between two runs: their configs and what came out."""

import math

from project.report.markup import number, paragraph, table
from project.report.outcome import numbers
from project.report.read import Run
from project.runs.config import EXPECTED, differences

NOTHING = "\N{EN DASH}"


def config_differences(a: Run, b: Run) -> str:
    """Return the table of what differs between the configs of two runs."""
    rows = [(*found, EXPECTED.get(found[0], "")) for found in differences(a.config, b.config)]
    if not rows:
        return paragraph("The two configs are the same.")
    return table("Settings that differ", ["setting", "A", "B", "expected to differ"], rows, "text")


def outcome_differences(a: Run, b: Run) -> str:
    """Return the table of what came out of two runs."""
    return table("What came out", ["quantity", "A", "B", "B minus A"], outcome_rows(a, b))


def outcome_rows(a: Run, b: Run) -> list[list[str]]:
    """Return each quantity that came out of two runs: its name, that of A, that of B, and B minus A."""
    left, right = numbers(a), numbers(b)
    rows = []
    for name in dict.fromkeys([*left, *right]):
        shown = [number(*found[name]) if name in found else NOTHING for found in (left, right)]
        both = name in left and name in right
        difference = right[name][0] - left[name][0] if both else math.nan
        sign = "+" if difference > 0 else ""
        metric = (left.get(name) or right[name])[1]
        rows.append([name, *shown, f"{sign}{number(difference, metric)}" if math.isfinite(difference) else NOTHING])
    return rows
