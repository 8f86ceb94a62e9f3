"""The report of a run, or of two side by side, as one HTML file that needs nothing else."""

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
from project.runs.config import CONFIG

Content = Callable[[Run, Charts], str]


@dataclass
class Section:
    """A part of the page about what the callbacks of a run wrote.

    Attributes:
        makers: Beginnings of tags and files; the callbacks that write what is missing are named.
        each: Makes the content for one run.
        together: Makes the content for all runs in the same charts, before what ``each`` makes.
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
    Section("curves", "PRROCCurves", ("lr",), together=curves),
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
        runs: A run, or two.
        output: File that the page is for: links to the runs' files are relative to it.
    """
    charts = Charts()
    names = [f"{letter}: {run.name}" for letter, run in zip("AB", runs, strict=False)]
    parts = {"outcome": ("Outcome", _outcome(runs, names))}
    if len(runs) == 2:
        parts["differences"] = ("What differs", config_differences(*runs))
    for section in SECTIONS:
        parts[section.name] = (section.title, _content(section, runs, names, charts))
    parts["config"] = ("Resolved config", columns(names, [_config(run) for run in runs]))
    parts["made"] = ("What produced it", columns(names, [_made(run, output) for run in runs]))
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
    told = [
        paragraph(sentence(run), "outcome") + "".join(paragraph(text, "warning") for text in warnings(run))
        for run in runs
    ]
    return columns(names, told) + (outcome_differences(*runs) if len(runs) == 2 else "")


def _content(section: Section, runs: Sequence[Run], names: Sequence[str], charts: Charts) -> str:
    """Return a section's content, and what would make more of it."""
    content = section.together(runs, charts) if section.together else ""
    each = [(section.each(run, charts) if section.each else "") + _missing(section, run) for run in runs]
    return content + (columns(names, each) if any(each) else "")


def _missing(section: Section, run: Run) -> str:
    """Return which callbacks would make what a run does not hold."""
    parts = []
    for kind in section.makers:
        if run.has(kind):
            continue
        maker = maker_of(kind)
        if maker is None:
            parts.append(f"Not in this run: `{kind}`. No callback that can be read makes it.")
        elif maker in run.config_text:
            parts.append(f"Not in this run: `{kind}`. `{maker}` of the config found nothing to write, or not yet.")
        else:
            parts.append(f"Not in this run: `{kind}`. Add `{maker}` to `trainer.callbacks`.")
    return "".join(paragraph(text, "note") for text in parts)


def _config(run: Run) -> str:
    """Return the settings of the latest start, and those of earlier ones from which it differs."""
    earlier = sorted(run.folder.glob(f"before/*/{CONFIG}"), reverse=True)
    texts = {CONFIG: run.config_text} | {
        str(file.relative_to(run.folder)): file.read_text(errors="replace") for file in earlier
    }
    return "".join(details(name, f"<pre>{escape(text)}</pre>") for name, text in texts.items())


def _made(run: Run, output: Path) -> str:
    """Return versions that the config begins with, and the files that the page was made from."""
    comments = [line.lstrip("# ") for line in run.config_text.splitlines() if line.startswith("#")]
    rows = [["versions", ", ".join(comments) or "not recorded"], ["seed", str(run.setting("seed_everything"))]]
    rows.append(["folder", os.path.relpath(run.folder, output.parent)])
    rows.append(["report", f"project {__version__}"])
    rows.append(["to repeat it", f"python -m project fit --config {shlex.quote(str(run.folder / CONFIG))}"])
    return table("Versions and files", ["what", "value"], rows, "text")
