"""``doctor``: say what is wrong with a training, before it starts, or from what a run recorded."""

from pathlib import Path
from typing import Any

from project.commands.light_parser import LightParser
from project.doctor.messages import terminal
from project.doctor.run import RESULT, diagnose_run, known_causes, write_result
from project.runs.config import CONFIG
from project.runs.folders import find_run


def run(args: list[str]) -> Path:
    """Print a diagnosis, and return the path of its doctor.json.

    Raises:
        RunError: The run does not exist, or has no facts.
        SystemExit: The command line is invalid, or the network cannot be built.
    """
    if any(arg.partition("=")[0] == "--run" for arg in args):
        result, path, options = of_run(args)
        args = ["--config", str(path.with_name(CONFIG))]
    else:
        from project.cli.doctor import of_settings  # imports torch, which takes seconds

        result, path, options = of_settings(args)
    print("\n".join([*terminal(result), f"Result: {path}"]), flush=True)
    if options.treat:
        from project.cli.trial import try_remedy  # imports torch, which takes seconds

        print(try_remedy(args, result, options.minutes), flush=True)
        write_result(result, path)
    return path


def of_run(args: list[str]) -> tuple[dict[str, Any], Path, Any]:
    """Diagnose a run, finished or not; return the result, its file and the options."""
    parser = LightParser("doctor", "Say what is wrong with a run, from what the callback `doctor` recorded.")
    parser.add_argument("--run", required=True, help="Run directory, its name in runs_dir, `last` or `best`.")
    parser.add_argument("--silence", default="", help="Causes that are no alarms, with commas.")
    parser.add_argument("--treat", action="store_true", help="Try the remedy of the alarm in short trainings.")
    parser.add_argument("--minutes", type=float, default=5.0, help="Time for --treat.")
    options = parser.parse_args(args)
    folder = find_run(options.run, options.runs_dir)
    return diagnose_run(folder, known_causes(options.silence)), folder / RESULT, options
