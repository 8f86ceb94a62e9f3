"""Render the report of a run, or of two side by side, as a self-contained HTML page."""

import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

from project import __version__
from project.report.charts import Charts
from project.report.compare import config_differences, outcome_differences
from project.report.curves import curves, others, times
from project.report.distributions import distributions, gradient_flow
from project.report.markup import columns, details, escape, paragraph, table
from project.report.outcome import facts, subject, warnings
from project.report.pictures import WHAT, kind_of, pictures
from project.report.read import Run
from project.report.style import STYLE
from project.report.tables import class_report, confusion_matrix, has_matrix, mistakes
from project.runs import record
from project.runs.config import CONFIG, PREVIOUS_CONFIGS, flatten

Content = Callable[[Run, Charts], str]


class Section(NamedTuple):
    """A section of the page about what the callbacks of a run wrote; it is left out if it has no content."""

    name: str  # its id
    title: str
    each: Content | None = None  # renders one run
    together: Callable[[Sequence[Run], Charts], str] | None = None  # renders all runs in the same charts


def _confusion(run: Run, charts: Charts) -> str:
    drawn = [] if has_matrix(run, "val") else ["confusion_matrix", "confusion_matrix_normalised"]
    return _of_stages(run, confusion_matrix) + pictures(run, drawn)


def _classes(run: Run, charts: Charts) -> str:
    return _of_stages(run, class_report) + pictures(run, ["roc"])


def _mistakes(run: Run, charts: Charts) -> str:
    return mistakes(run, "val") + (mistakes(run.test, "test") if run.test else "")


def _of_stages(run: Run, make: Callable[[Run, str], str]) -> str:
    content = make(run, "val") + (make(run.test, "test") if run.test else "")
    return f'<div class="tables">{content}</div>' if content else ""


def _kinds(*kinds: str) -> Content:
    return lambda run, charts: pictures(run, kinds)


def _flow(run: Run, charts: Charts) -> str:
    return gradient_flow(run, charts) or pictures(run, ["gradient_flow"])


def _others(run: Run, charts: Charts) -> str:
    rest = dict.fromkeys(kind_of(tag) for tag in run.pictures if kind_of(tag) not in WHAT)
    return pictures(run, ["training_batch", *rest])


SECTIONS = (
    Section("curves", "Learning curves", together=curves),
    Section("confusion", "Confusion matrix", _confusion),
    Section("mistakes", "Most confident mistakes", _mistakes),
    Section("attention", "Grad-CAM and occlusion", _kinds("grad_cam", "occlusion")),
    Section("classes", "Classes", _classes),
    Section("kernels", "Kernels", _kinds("kernels_colour", "kernels", "kernels_video")),
    Section("maps", "Feature maps", _kinds("feature_maps")),
    Section("distributions", "Distributions over time", distributions),
    Section("flow", "Gradient flow", _flow),
    Section("time", "Time and throughput", together=times),
    Section("more", "More pictures and scalars", _others, others),
)


def render(runs: Sequence[Run]) -> str:
    """Return the page of one run, or of two."""
    charts = Charts()
    names = [f"{letter}: {run.name}" for letter, run in zip("AB", runs, strict=False)]
    parts = {"outcome": ("Outcome", _outcome(runs, names))}
    if len(runs) == 2:
        parts["differences"] = ("What differs", config_differences(*runs))
    for section in SECTIONS:
        if content := _content(section, runs, names, charts):
            parts[section.name] = (section.title, content)
    parts["origin"] = ("What produced it", columns(names, [_origin(run) + _config(run) for run in runs]))
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"Runs {' and '.join(names)}"
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in parts.items())
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{content}</section>' for name, (heading, content) in parts.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1></header><nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        f"<main>{body}</main></body></html>\n"
    )


def _outcome(runs: Sequence[Run], names: Sequence[str]) -> str:
    outcomes = []
    for run in runs:
        tiles = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(remark)}</dd></div>"
            for name, value, remark in facts(run)
        )
        notes = "".join(paragraph(text, "warning") for text in warnings(run))
        outcomes.append(f'{paragraph(f"{subject(run)}.")}<dl class="outcome">{tiles}</dl>{notes}')
    return columns(names, outcomes) + (outcome_differences(*runs) if len(runs) == 2 else "")


def _content(section: Section, runs: Sequence[Run], names: Sequence[str], charts: Charts) -> str:
    content = section.together(runs, charts) if section.together else ""
    each = [section.each(run, charts) if section.each else "" for run in runs]
    return content + (columns(names, each) if any(each) else "")


def _config(run: Run) -> str:
    """Return the config of the latest start, and those of earlier starts with other settings."""
    earlier = sorted(run.folder.glob(f"{PREVIOUS_CONFIGS}/*/{CONFIG}"), reverse=True)
    texts = {CONFIG: run.config_text} | {
        str(file.relative_to(run.folder)): file.read_text(errors="replace") for file in earlier
    }
    return "".join(details(name, f"<pre>{escape(text)}</pre>") for name, text in texts.items())


def _origin(run: Run) -> str:
    """Return a table of what run.json records, and of the command that repeats the run."""
    info = record.read(run.folder)
    starts = {start.get("at", "command line"): start.get("command") for start in [info, *info.get("resumed", [])]}
    rows = [[f"resumed {name}" if name != "command line" else name, _shell(starts[name])] for name in starts]
    rows.append(["to repeat it", _shell(["fit", "--config", str(run.folder / CONFIG)])])
    facts = {name: info.get(name) for name in ("git", "versions", "hardware", "data")}
    rows += [[re.sub("[._]", " ", key), str(value)] for key, value in flatten(facts) if value is not None]
    rows += [["seed", str(run.setting("seed_everything"))], ["report", f"project {__version__}"]]
    return table("Command line, code, versions, hardware and data", ["what", "value"], rows, "text")


def _shell(command: Sequence[str] | None) -> str:
    return "not recorded" if command is None else f"python -m project {shlex.join(map(str, command))}"
