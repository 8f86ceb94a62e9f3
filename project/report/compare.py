"""What differs between two runs: their configs and what came out."""

import math
from collections.abc import Iterator
from typing import Any

from project.report.markup import number, paragraph, table
from project.report.outcome import numbers
from project.report.read import Run

NOTHING = "\N{EN DASH}"
MISSING = "(not in this config)"
EXPECTED = {
    "runs_dir": "where runs are kept",
    "run": "where runs are kept",
    "ckpt_path": "where a run goes on from",
    "data.init_args.root": "where the images are",
    "seed_everything": "repeats of a run differ in it",
}


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of a config; a class in a list is named by its class, not by its place."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        seen: dict[str, int] = {}
        for i, one in enumerate(value):
            name = str(one.get("class_path", i)) if isinstance(one, dict) else str(i)
            seen[name] = seen.get(name, 0) + 1
            yield from flatten(one, f"{prefix}.{name}" + (f"#{seen[name]}" if seen[name] > 1 else ""))
    else:
        yield prefix, value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the dotted keys in which two configs differ, with both values."""
    a, b = dict(flatten(one)), dict(flatten(other))
    keys = dict.fromkeys([*a, *b])
    pairs = ((key, _shown(a, key), _shown(b, key)) for key in keys)
    return [(key, left, right) for key, left, right in pairs if left != right]


def config_differences(a: Run, b: Run) -> str:
    """Return the table of what differs between the configs of two runs."""
    rows = [(*found, EXPECTED.get(found[0], "")) for found in differences(a.config, b.config)]
    if not rows:
        return paragraph("The two configs are the same.")
    return table("Settings that differ", ["setting", "A", "B", "expected to differ"], rows, "text")


def outcome_differences(a: Run, b: Run) -> str:
    """Return the table of what came out of two runs."""
    left, right = numbers(a), numbers(b)
    rows = []
    for name in dict.fromkeys([*left, *right]):
        shown = [number(*found[name]) if name in found else NOTHING for found in (left, right)]
        both = name in left and name in right
        difference = right[name][0] - left[name][0] if both else math.nan
        sign = "+" if difference > 0 else ""
        metric = (left.get(name) or right[name])[1]
        rows.append([name, *shown, f"{sign}{number(difference, metric)}" if math.isfinite(difference) else NOTHING])
    return table("What came out", ["quantity", "A", "B", "B minus A"], rows)


def _shown(config: dict[str, Any], key: str) -> str:
    return str(config[key]) if key in config else MISSING
