"""``report``: write the results of a run, or of two side by side, as one HTML file."""

from pathlib import Path

from project.commands.light_parser import LightParser, check_new
from project.report import write_report
from project.runs.folders import find_run


def run(args: list[str]) -> Path:
    """Write the report and return its path.

    Raises:
        RunError: The run does not exist.
    """
    parser = LightParser("report", "Write the results of a run, or of two side by side, as one HTML file.", ("run",))
    parser.add_argument("other", metavar="RUN2", nargs="?", help="Another run to compare with.")
    parser.add_argument(
        "--output",
        type=Path,
        help="A new HTML file. Default: report.html in the run directory, or report_with_<run>.html in that of RUN2.",
    )
    options = parser.parse_args(args)
    run, other = (name and find_run(name, options.runs_dir) for name in (options.run, options.other))
    if options.output is not None:
        check_new(options.output)
    path = write_report(run, other, options.output)
    print(f"Report: {path}")
    return path
