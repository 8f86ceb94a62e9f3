"""Write the report of a run."""

from pathlib import Path

from atomic_files import write_atomically
from project.report.page import render
from project.report.read import read_run
from project.runs.folders import REPORT


def write_report(run: Path, other: Path | None = None, output: Path | None = None) -> Path:
    """Write the report of a run, or of two side by side, and return its path.

    Args:
        run: Run directory.
        other: Another run directory to compare with.
        output: The file. Default: report.html in ``run``, or report_with_<run>.html in ``other``.

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
