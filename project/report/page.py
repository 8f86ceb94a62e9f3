"""Render the report of a run, or of two side by side, as a self-contained HTML page. Imports no torch."""

import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atomic_files import write_atomically
from project import __version__
from project.report import tables
from project.report.charts import Chart, distribution_chart, line_chart, line_of, not_finite, spread_evenly
from project.report.diagnosis import diagnosis
from project.report.read import Run, read_run
from project.runs import record
from project.runs.config import CONFIG, EXPECTED, PREVIOUS_CONFIGS, differences, flatten
from project.runs.folders import REPORT
from project.runs.outcome import changes, compare, facts, subject

SECTIONS: dict[str, tuple[str, list[str], list[str]]] = {  # title; kinds of pictures that are shown, and folded
    "diagnosis": ("Diagnosis", [], []),
    "outcome": ("Outcome", [], []),
    "curves": ("Learning curves", [], []),
    "confusion": ("Confusion matrix", [], ["confusion_matrix"]),
    "mistakes": ("Most confident mistakes", ["mistakes"], []),
    "attention": ("Grad-CAM and occlusion", ["grad_cam", "occlusion"], []),
    "classes": ("Classes", ["roc"], []),
    "kernels": ("Kernels", ["kernels_colour"], ["kernels", "kernels_video"]),
    "maps": ("Feature maps", ["feature_maps"], []),
    "distributions": ("Distributions over time", [], []),
    "flow": ("Gradient flow", ["gradient_flow"], []),
    "more": ("More pictures and scalars", [], []),  # pictures of all other kinds
    "origin": ("What produced it", [], []),
}
CURVES = {  # charts of scalars, by a pattern of their names
    "Loss": "(train|val)/loss",
    "Accuracy": "(train|val)/acc",
    "Loss of single training steps": "train/loss_step",
    "Learning rate": "lr-(?!.*-(momentum|weight_decay)$).*",  # of LearningRateMonitor
    "Momentum": "lr-.*-momentum",
    "Weight decay": "lr-.*-weight_decay",
}
MOST_LINES, MOST_CHARTS, MOST_WARNINGS = 6, 12, 8  # of a chart: as many as colours; of other scalars; of NaN and Inf
OPEN, FOLDED = 3, 6  # charts of a kind of distributions


def write_report(run: Path, other: Path | None = None, output: Path | None = None) -> Path:
    """Write the report of a run directory, or of two side by side, and return its path.

    Without ``output``, it is report.html in ``run``, or report_with_<run>.html in ``other``.

    Raises:
        RunError: A config is not YAML.
        OSError: A file cannot be read or written.
    """
    if output is None:
        name = f"report_with_{run.absolute().parent.name}_{run.absolute().name}.html"
        output = run / REPORT if other is None else other / name
    page = render([read_run(folder) for folder in (run, other) if folder is not None])
    output.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(output) as partial:  # a browser may have the page open
        partial.write_text(page, encoding="utf-8")
    return output


def render(runs: Sequence[Run]) -> str:
    """Return the page of one run, or of two."""
    names = [f"{letter}: {run.result.name}" for letter, run in zip("AB", runs, strict=False)]
    names = names if len(runs) == 2 else [runs[0].result.name]
    macros: Any = _templates().get_template("sections.html").make_module({"names": names})
    sections = {name: str(macros.section(name, runs, *kinds)).strip() for name, (_, *kinds) in SECTIONS.items()}
    title = f"Run{'s' if len(runs) > 1 else ''} {' and '.join(names)}"
    shown = [(name, SECTIONS[name][0], content) for name, content in sections.items() if content]
    return _templates().get_template("page.html").render(title=title, sections=shown)


@cache
def _templates() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    functions = (facts, subject, warnings, scalar_charts, distribution_charts, compared, config_texts, origin_table)
    templates.globals |= {each.__name__: each for each in (diagnosis, *functions, tables.confusions, tables.table_of)}
    templates.globals["known"] = [kind for _, shown, folded in SECTIONS.values() for kind in shown + folded]
    return templates


def warnings(run: Run) -> list[str]:
    """Return notes about changed settings, and NaN and Inf."""
    unit = "epoch" if run.epoch_ends else "step"
    notes = [note for tag in run.scalars if (note := not_finite(line_of(run, tag, unit, tag), unit))]
    more = f"{len(notes) - MOST_WARNINGS} more scalars are not finite." if len(notes) > MOST_WARNINGS else ""
    return list(filter(None, [changes(run.folder), *notes[:MOST_WARNINGS], more]))


def scalar_charts(runs: Sequence[Run], section: str) -> list[Chart]:
    """Return the charts of scalars in a section: "curves" for those of ``CURVES``, "more" for one of each other."""
    charts: dict[str, list[str]] = {title: [] for title in CURVES}
    for tag in sorted({tag for run in runs for tag in run.scalars} - {"epoch"}):
        title = next((title for title, pattern in CURVES.items() if re.fullmatch(pattern, tag)), tag)
        charts.setdefault(title, []).append(tag)
    titles = [title for title, tags in charts.items() if tags and (title in CURVES) == (section == "curves")]
    drawn = [_chart(runs, title, charts[title]) for title in titles[:MOST_CHARTS]]
    if len(titles) > MOST_CHARTS:
        drawn[-1].notes.append(f"{len(titles) - MOST_CHARTS} more scalars are in metrics.csv.")
    return drawn


def _chart(runs: Sequence[Run], title: str, tags: Sequence[str]) -> Chart:
    unit = "epoch" if all(run.epoch_ends for run in runs if run.scalars) else "step"  # the same for all lines
    lines = []
    for i, run in enumerate(runs):
        for style, tag in enumerate(tags[:MOST_LINES]):
            if tag in run.scalars:
                name = re.sub("^lr-|-momentum$|-weight_decay$|/(loss|acc)$", "", tag) if title in CURVES else title
                lines.append(line_of(run, tag, unit, name if len(runs) == 1 else f"{'AB'[i]} {name}", style, i))
    chart = line_chart(title, lines, unit, "acc" if title == "Accuracy" or "/acc" in title else "")
    if len(tags) > MOST_LINES:
        chart.notes.append(f"{len(tags) - MOST_LINES} more are in metrics.csv, such as {tags[-1]}.")
    return chart


def distribution_charts(run: Run) -> list[tuple[str, list[Chart], list[Chart], int]]:
    """Return title, charts, folded charts and number of further tensors of each kind, as "weights"."""
    found = []
    for kind in dict.fromkeys(tag.partition("/")[0] for tag in run.distributions):
        tags = [tag for tag in run.distributions if tag.partition("/")[0] == kind]
        drawn = spread_evenly(tags, OPEN + FOLDED)
        charts = [distribution_chart(tag.partition("/")[2] or tag, run.distributions[tag]) for tag in drawn]
        found.append((kind, charts[:OPEN], charts[OPEN:], len(tags) - OPEN))
    return found


def compared(runs: Sequence[Run]) -> list[tables.Table]:
    """Return tables of the results of two runs, and of the settings in which they differ."""
    if len(runs) == 1:
        return []
    a, b = runs
    settings = [(key, left, right, EXPECTED.get(key, "")) for key, left, right in differences(a.config, b.config)]
    header, note = ["setting", "A", "B", "expected to differ"], "" if settings else "The two configs are the same."
    rows = compare((a.folder, a.result), (b.folder, b.result))
    results = tables.Table("Results", ["quantity", "A", "B", "B minus A"], rows)
    return [results, tables.Table("Settings that differ", header, settings, "text", note)]


def config_texts(run: Run) -> list[tuple[str, str]]:
    """Return name and text of the config of the latest start, and of those of earlier starts with other settings."""
    files = [run.folder / CONFIG, *sorted(run.folder.glob(f"{PREVIOUS_CONFIGS}/*/{CONFIG}"), reverse=True)]
    return [(str(file.relative_to(run.folder)), file.read_text(errors="replace")) for file in files]


def origin_table(run: Run) -> tables.Table:
    """Return a table of what run.json records, and of the command that repeats the run."""
    info = record.read(run.folder)
    starts = {start.get("at", "command line"): start.get("command") for start in [info, *info.get("resumed", [])]}
    rows = [[name if name == "command line" else f"resumed {name}", _shell(starts[name])] for name in starts]
    rows.append(["to repeat it", _shell(["fit", "--config", str(run.folder / CONFIG)])])
    known = {name: info.get(name) for name in ("git", "versions", "hardware", "data")}
    rows += [[re.sub("[._]", " ", key), str(value)] for key, value in flatten(known) if value is not None]
    rows += [["seed", str(run.config.get("seed_everything"))], ["report", f"project {__version__}"]]
    return tables.Table("Command line, code, versions, hardware and data", ["what", "value"], rows, "text")


def _shell(command: Sequence[str] | None) -> str:
    return "not recorded" if command is None else f"python -m project {shlex.join(map(str, command))}"
