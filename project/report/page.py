"""Render the report of a run, or of two side by side, as a self-contained HTML page."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from project import __version__
from project.report.charts import Charts
from project.report.compare import config_differences, outcome_differences
from project.report.curves import curves, others, times
from project.report.distributions import distributions, gradient_flow
from project.report.makers import maker_of
from project.report.markup import columns, details, escape, paragraph, table
from project.report.outcome import sentence, warnings
from project.report.pictures import WHAT, kind_of, pictures
from project.report.read import Run
from project.report.style import STYLE
from project.report.tables import class_report, confusion_matrix, has_matrix, mistakes
from project.runs.config import CONFIG, PREVIOUS_CONFIGS

Content = Callable[[Run, Charts], str]


@dataclass
class Section:
    """A section of the page about what the callbacks of a run wrote.

    Attributes:
        name: Id of the section.
        title: Heading.
        makers: Prefixes of tags and files. If a run has none, the page names the callback that writes them.
        each: Renders the content of one run.
        together: Renders all runs in the same charts, before ``each``.
    """

    name: str
    title: str
    makers: tuple[str, ...]
    each: Content | None = None
    together: Callable[[Sequence[Run], Charts], str] | None = None


def _confusion(run: Run, charts: Charts) -> str:
    drawn = [] if has_matrix(run, "val") else ["confusion_matrix", "confusion_matrix_normalised"]
    return _of_stages(run, confusion_matrix) + pictures(run, [*drawn, "roc"])


def _classes(run: Run, charts: Charts) -> str:
    return _of_stages(run, class_report)


def _mistakes(run: Run, charts: Charts) -> str:
    return pictures(run, ["mistakes"]) + _of_stages(run, mistakes)


def _of_stages(run: Run, make: Callable[[Run, str], str]) -> str:
    content = make(run, "val") + (make(run.test, "test") if run.test else "")
    return f'<div class="tables">{content}</div>' if content else ""


def _kinds(*kinds: str) -> Content:
    return lambda run, charts: pictures(run, kinds)


def _flow(run: Run, charts: Charts) -> str:
    return gradient_flow(run, charts) + pictures(run, ["gradient_flow"])


def _others(run: Run, charts: Charts) -> str:
    rest = dict.fromkeys(kind_of(tag) for tag in run.pictures if kind_of(tag) not in WHAT)
    return pictures(run, ["training_batch", *rest])


SECTIONS = (
    Section("curves", "Curves", ("lr",), together=curves),
    Section("confusion", "Confusion matrix", ("confusion_matrix",), _confusion),
    Section("classes", "Classes", ("class_report",), _classes),
    Section("mistakes", "Worst mistakes", ("mistakes",), _mistakes),
    Section("kernels", "Kernels", ("kernels",), _kinds("kernels_colour", "kernels", "kernels_split", "kernels_video")),
    Section("maps", "Feature maps", ("feature_maps",), _kinds("feature_maps")),
    Section("attention", "Grad-CAM and occlusion", ("grad_cam", "occlusion"), _kinds("grad_cam", "occlusion")),
    Section(
        "distributions", "Distributions over time", ("weights", "gradients", "updates", "activations"), distributions
    ),
    Section("flow", "Gradient flow", ("gradients", "updates"), _flow),
    Section("time", "Time and throughput", ("time",), together=times),
    Section("more", "More pictures and scalars", ("training_batch",), _others, others),
)


def render(runs: Sequence[Run], output: Path) -> str:
    """Return the page.

    Args:
        runs: One or two runs.
        output: Path of the page; paths of runs are relative to it.
    """
    charts = Charts()
    names = [f"{letter}: {run.name}" for letter, run in zip("AB", runs, strict=False)]
    parts = {"outcome": ("Outcome", _outcome(runs, names))}
    if len(runs) == 2:
        parts["differences"] = ("What differs", config_differences(*runs))
    for section in SECTIONS:
        parts[section.name] = (section.title, _content(section, runs, names, charts))
    parts["config"] = ("Resolved config", columns(names, [_config(run) for run in runs]))
    parts["origin"] = ("Versions and files", columns(names, [_origin(run, output) for run in runs]))
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
    outcomes = [
        paragraph(sentence(run), "outcome") + "".join(paragraph(text, "warning") for text in warnings(run))
        for run in runs
    ]
    return columns(names, outcomes) + (outcome_differences(*runs) if len(runs) == 2 else "")


def _content(section: Section, runs: Sequence[Run], names: Sequence[str], charts: Charts) -> str:
    """Return the content of a section, and notes about callbacks that would add to it."""
    content = section.together(runs, charts) if section.together else ""
    each = [(section.each(run, charts) if section.each else "") + _missing(section, run) for run in runs]
    return content + (columns(names, each) if any(each) else "")


def _missing(section: Section, run: Run) -> str:
    """Return notes about the callbacks that would write what a run does not have."""
    parts = []
    for kind in section.makers:
        if run.has(kind):
            continue
        maker = maker_of(kind)
        if maker is None:
            parts.append(f"Not in this run: `{kind}`. No callback in callbacks/ writes it.")
        elif maker in run.config_text:
            parts.append(f"Not in this run: `{kind}`. `{maker}` is in the config, but has written nothing yet.")
        else:
            parts.append(f"Not in this run: `{kind}`. Add `{maker}` to `trainer.callbacks`.")
    return "".join(paragraph(text, "note") for text in parts)


def _config(run: Run) -> str:
    """Return the config of the latest start, and those of earlier starts with other settings."""
    earlier = sorted(run.folder.glob(f"{PREVIOUS_CONFIGS}/*/{CONFIG}"), reverse=True)
    texts = {CONFIG: run.config_text} | {
        str(file.relative_to(run.folder)): file.read_text(errors="replace") for file in earlier
    }
    return "".join(details(name, f"<pre>{escape(text)}</pre>") for name, text in texts.items())


def _origin(run: Run, output: Path) -> str:
    """Return versions from the comments of the config, seed, run directory, and the command that repeats the run."""
    comments = [line.lstrip("# ") for line in run.config_text.splitlines() if line.startswith("#")]
    rows = [["versions", ", ".join(comments) or "not recorded"], ["seed", str(run.setting("seed_everything"))]]
    rows.append(["run directory", os.path.relpath(run.folder, output.parent)])
    rows.append(["report", f"project {__version__}"])
    rows.append(["command to repeat it", f"python -m project fit --config {shlex.quote(str(run.folder / CONFIG))}"])
    return table("Versions and files", ["what", "value"], rows, "text")
