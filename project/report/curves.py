"""Draw curves of scalars over epochs, of one run or of two in the same chart."""

import re
from collections.abc import Sequence

import numpy as np

from project.report.charts import Charts
from project.report.legend import Line
from project.report.markup import paragraph
from project.report.read import Run
from project.report.svg import COLOURS

STYLES = {"train": 0, "val": 1}  # of lines, the same in all charts
MOST_CHARTS = 12  # of scalars without a chart of their own
TIMES = {
    "time/train_seconds": "Training, seconds per epoch",
    "time/val_seconds": "Validation, seconds per epoch",
    "time/images_per_second": "Training, images per second",
}
ELSEWHERE = {
    "train/loss",
    "val/loss",
    "train/acc",
    "val/acc",
    "train/loss_step",
    *TIMES,
    "epoch",
    "hp/epochs",
    "hp_metric",
}  # drawn by other functions, or printed elsewhere on the page
OF_GROUPS = {
    "Learning rate": r"lr-.*(?<!-momentum)(?<!-weight_decay)",
    "Momentum": r"lr-.*-momentum",
    "Weight decay": r"lr-.*-weight_decay",
}  # tags of LearningRateMonitor; every tag that starts with lr- matches one of them


def line_of(run: Run, tag: str, name: str, style: int = 0, number: int = 0) -> tuple[Line, str]:
    """Return a scalar as a line, and the unit of its x: epochs, or steps if the epochs are unknown."""
    series = run.scalars.get(tag, [])
    steps = [scalar.step for scalar in series]
    epochs = run.epochs(steps)
    x = np.array(steps, float) if epochs is None else epochs
    return Line(name, x, np.array([scalar.value for scalar in series]), style, number), _unit(run)


def curves(runs: Sequence[Run], charts: Charts) -> str:
    """Return charts of loss, accuracy, and the hyperparameters of the optimizer."""
    drawn = [
        _chart(runs, charts, "Loss", {"train/loss": "train", "val/loss": "val"}),
        _chart(runs, charts, "Accuracy", {"train/acc": "train", "val/acc": "val"}, "acc"),
        _chart(runs, charts, "Loss of single training steps", {"train/loss_step": "train"}),
        *(part for title, pattern in OF_GROUPS.items() for part in _groups(runs, charts, title, pattern)),
    ]
    return _grid(drawn)


def times(runs: Sequence[Run], charts: Charts) -> str:
    """Return charts of seconds per epoch and images per second."""
    return _grid([_chart(runs, charts, title, {tag: ""}) for tag, title in TIMES.items()])


def others(runs: Sequence[Run], charts: Charts) -> str:
    """Return charts of the scalars that have no other section."""
    tags = dict.fromkeys(tag for run in runs for tag in run.scalars)
    best = {f"hp/{tag}" for tag in tags}  # logged by Hyperparameters: the best value of a scalar that has a chart
    rest = [tag for tag in tags if tag not in ELSEWHERE | best and not tag.startswith("lr-")]
    drawn = [_chart(runs, charts, tag, {tag: ""}, "acc" if "/acc" in tag else "") for tag in rest[:MOST_CHARTS]]
    left = paragraph(f"{len(rest) - MOST_CHARTS} more scalars are in TensorBoard.") if len(rest) > MOST_CHARTS else ""
    return _grid(drawn) + left


def _groups(runs: Sequence[Run], charts: Charts, title: str, pattern: str) -> list[str]:
    """Return a chart of one hyperparameter of the optimizer, for at most ``len(COLOURS)`` param groups."""
    tags = list(dict.fromkeys(tag for run in runs for tag in run.scalars if re.fullmatch(pattern, tag)))
    names = {tag: re.sub("^lr-|-momentum$|-weight_decay$", "", tag) for tag in tags[: len(COLOURS)]}
    chart = _chart(runs, charts, title, names)
    left = f"{title} of {len(tags) - len(names)} more groups is in TensorBoard, such as `{tags[-1]}`." if tags else ""
    return [chart, paragraph(left, "note") if len(tags) > len(names) else ""]


def _chart(runs: Sequence[Run], charts: Charts, title: str, names: dict[str, str], metric: str = "") -> str:
    lines = []
    unit = "epoch" if all(_unit(run) == "epoch" for run in runs) else "step"
    for number, run in enumerate(runs):
        for i, (tag, name) in enumerate(names.items()):
            if tag in run.scalars:
                which = "AB"[number] if len(runs) > 1 else ""
                line, _ = line_of(run, tag, f"{which} {name}".strip() or title, STYLES.get(name, i), number)
                if unit == "step":
                    line.x = np.array([scalar.step for scalar in run.scalars[tag]], float)
                lines.append(line)
    return charts.lines(title, lines, unit, metric) if lines else ""


def _unit(run: Run) -> str:
    return "epoch" if run.epoch_ends else "step"


def _grid(charts: Sequence[str]) -> str:
    content = "".join(charts)
    return f'<div class="grid">{content}</div>' if content else ""
