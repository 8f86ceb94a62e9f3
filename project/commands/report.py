"""``report``: what is known of a run, or of two side by side, as one HTML file."""

from pathlib import Path

from project.commands.light_parser import LightParser, check_new, report_run_errors
from project.report import write_report
from project.runs.folders import find_run


def run(args: list[str]) -> Path:
    """Write the report and return where it lies.

    Raises:
        SystemExit: There is no such run.
    """
    parser = LightParser("report", "Write what is known of a run, or of two side by side, as one HTML file.")
    parser.add_argument("other", metavar="RUN2", nargs="?", help="Another run, to compare it with.")
    parser.add_argument(
        "--output",
        type=Path,
        help="A new HTML file; by default report.html in the run's folder, with two runs in RUN2's, then replaced.",
    )
    options = parser.parse_args(args)
    with report_run_errors():
        runs = [find_run(name, Path(options.runs_dir)) for name in (options.run, options.other) if name is not None]
        if options.output is not None:
            check_new(options.output)
        path = write_report(runs[0], runs[1] if len(runs) == 2 else None, options.output)
    print(f"Report: {path}")
    return path
