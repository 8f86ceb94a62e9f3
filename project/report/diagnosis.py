"""The first section of the page: the content of doctor.json, and figures that show it. Imports no torch."""

import json
from contextlib import suppress
from typing import Any, NamedTuple

from project.doctor.messages import change, evidence
from project.report.read import Run
from project.report.tables import Table

RESULT = "doctor.json"
WORDS = {
    "alarm": "Alarm",
    "healthy": "Healthy: no cause of bad training was found",
    "too_early": "Too early to tell: no cause of bad training was found yet",
}
FIGURES = {  # by family of causes: kinds of pictures, and titles of charts of scalars
    "data": ["training_batch"],
    "labels": ["mistakes", "confusion_matrix"],
    "split": ["mistakes", "Accuracy"],
    "input": ["training_batch"],
    "augmentation": ["training_batch"],
    "wiring": ["gradient_flow"],
    "initialization": ["gradient_flow"],
    "activation": ["feature_maps", "gradient_flow"],
    "optimizer": ["Loss", "gradient_flow"],
    "learning_rate": ["Loss", "gradient_flow"],
    "schedule": ["Learning rate", "Loss"],
    "precision": ["gradient_flow"],
}
CURVES = ["Loss", "Accuracy"]  # of the other families
MOST = 8  # causes that are named as ruled out; doctor.json has all


class Diagnosis(NamedTuple):
    """What the doctor found in a run, in words, and the figures that show it."""

    verdict: str
    is_alarm: bool
    tables: list[Table]
    figures: list[str]
    notes: list[str]
    not_checked: list[str]


def diagnosis(run: Run) -> Diagnosis | None:
    """Return the content of a run's doctor.json; None if it has none, or it is damaged."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        result = json.loads((run.folder / RESULT).read_text(encoding="utf-8"))
        others = [f"Or ({each['confidence']}): {each['cause']}. {each['says']}" for each in result["alternatives"]]
        verdict, tables, figures = WORDS[result["verdict"]], [], []
        for alarm in result["alarms"]:
            verdict = f"{verdict} ({alarm['confidence']}): {alarm['says']}"
            tables = [
                Table("What to do", ["cause", alarm["cause"]], _words(alarm), "text"),
                Table("Evidence", ["symptom", "found", "meaning", "healthy"], evidence(alarm), "text"),
            ]
            figures = FIGURES.get(alarm["family"], CURVES)
        return Diagnosis(verdict, bool(tables), tables, figures, others + result["notes"], result["not_checked"])
    return None


def _words(alarm: dict[str, Any]) -> list[list[str]]:
    tried = alarm["tried"]
    rows = [
        ["why", alarm["why"]],
        ["change", change(alarm)],
        ["ruled out", ", ".join(alarm["ruled_out"][:MOST]) or "nothing"],
    ]
    rows += [["tried", tried["says"]]] if tried else []
    return [*rows, ["if it is intended", f"--callbacks.doctor.silence '[{alarm['cause']}]'"]]
