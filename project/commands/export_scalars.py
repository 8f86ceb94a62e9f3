"""``export-scalars``: write all scalars of a run as JSON."""

import json
from pathlib import Path

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
        write_scalars(folder, path)
    print(f"Scalars: {path}")
    return path


def write_scalars(folder: Path, path: Path) -> None:
    """Write the scalars in the event files of a directory.

    Raises:
        RunError: They hold no scalars.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    events = EventAccumulator(
        str(folder), dict.fromkeys(("images", "histograms", "tensors"), 1) | {"scalars": 0}
    ).Reload()
    tags = events.Tags()["scalars"]
    if not tags:
        raise RunError(
            f"Expected scalars in the event files of {folder}, but found none. Train with TensorBoardLogger."
        )
    rows = {}
    for tag in tags:
        latest = {event.step: event for event in events.Scalars(tag)}  # a resumed run may hold a step twice
        rows[tag] = [[event.wall_time, event.step, json_number(event.value)] for event in latest.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, allow_nan=False) + "\n", encoding="utf-8")
