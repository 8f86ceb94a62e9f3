"""``export-scalars``: write all scalars of a run as JSON."""

import json
from pathlib import Path
from typing import Any

from project.commands.light_parser import LightParser, check_new, json_number, report_run_errors
from project.errors import RunError
from project.runs.folders import find_run


def run(args: list[str]) -> Path:
    """Write ``{tag: [[wall_time, step, value], ...]}`` in TensorBoard's export format, and return the path of the file.

    NaN and Inf are written as strings: see ``json_number``.

    Raises:
        SystemExit: The run does not exist, or has no scalars.
    """
    parser = LightParser("export-scalars", "Write all scalars of a run as JSON.")
    parser.add_argument(
        "--output",
        type=Path,
        help="A new JSON file. Default: scalars.json in the run directory, which is overwritten.",
    )
    options = parser.parse_args(args)
    with report_run_errors():
        folder = find_run(options.run, Path(options.runs_dir))
        if options.output is not None:
            check_new(options.output)
        path = options.output or folder / "scalars.json"
        rows = read_scalars(folder)
        if not rows:
            raise RunError(
                f"Expected scalars in the event files of {folder}, but found none. Train with TensorBoardLogger."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, allow_nan=False) + "\n", encoding="utf-8")
    print(f"Scalars: {path}")
    return path


def read_scalars(folder: Path) -> dict[str, list[list[Any]]]:
    """Return time, step and value of the scalars in the event files of a directory, the latest of each step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    sizes = {"scalars": 0, "images": 1, "histograms": 1, "tensors": 1}
    events = EventAccumulator(str(folder), sizes).Reload()
    rows = {}
    for tag in events.Tags()["scalars"]:
        latest = {event.step: event for event in events.Scalars(tag)}  # a resumed run may hold a step twice
        rows[tag] = [[event.wall_time, event.step, json_number(event.value)] for event in latest.values()]
    return rows
