"""Resolve --run: which run a command uses, with which config, and from which of its checkpoints."""

import json
import os
from argparse import ArgumentError, ArgumentParser
from contextlib import suppress
from pathlib import Path

import yaml

from project.errors import RunError
from project.runs import record
from project.runs.command_line import config_files, option_of, split_options
from project.runs.config import BEST, CONFIG, LAST, nested, read_yaml, setting
from project.runs.folders import all_runs, best_checkpoint, find_run, paths_from_here, run_of_checkpoint
from project.runs.options import ROOT, RUN
from project.runs.ranks_env import is_first_process, started_by_lightning

RUN_VARIABLE = "PROJECT_RUN"  # environment variable: the run that rank zero selected


def _sets_root(file: Path) -> bool:
    """Return whether a config sets the data folder; a config that cannot be read is reported when it is parsed."""
    with suppress(yaml.YAMLError, RunError, UnicodeDecodeError, OSError):
        config = read_yaml(file.read_text(encoding="utf-8"))
        return isinstance(config, dict) and bool(setting(config, ROOT))
    return False


def with_paths(args: list[str]) -> list[str]:
    """Return a command line in which paths in configs of runs are relative to the working directories of these runs.

    Raises:
        RunError: The images of a run are missing, and would be downloaded to another directory.
    """
    groups = split_options(args)
    names = {option_of(group)[0] for group in groups}
    if any(_sets_root(file) for file in config_files(args) if file.name != CONFIG):
        names.add(ROOT)
    result = []
    for group in groups:
        result += group
        name, value = option_of(group)
        if name != "config" or value is None or os.path.basename(value) != CONFIG or not os.path.isfile(value):
            continue
        paths = paths_from_here(Path(value).parent)
        root = paths.get(ROOT)
        if root is not None and not os.path.exists(root) and not names & {"data", "data.root", ROOT}:
            raise RunError(
                f"Expected the images of {Path(value).parent} in {root}, as when it was started, but this directory "
                "does not exist. Set --data.root."
            )
        if paths:
            result += ["--config", json.dumps(nested(paths))]
    return result


def expand_run(args: list[str]) -> list[str]:
    """Replace ``--run``, or ``--ckpt_path`` without a config, with the options that load the run.

    ``fit`` resumes from last.ckpt; if it is missing, from best.ckpt, or else from scratch. Other commands use
    best.ckpt. With ``--run auto``, ``fit`` resumes the latest run of the same command line that is neither running nor
    finished, with the config files as they are now, and starts a new run if there is none. Processes that Lightning
    launches use the run of the process that launched them.

    Raises:
        RunError: The run does not exist, or a command other than ``fit`` needs its best checkpoint and finds none.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in (*(f"--{name}" for name in RUN), "--config", "-c"):
        parser.add_argument(option)
    try:
        options, _ = parser.parse_known_args(args[1:])
    except ArgumentError as error:
        raise RunError(f"Expected a value for {error.argument_name}, but got none.") from error
    run = None
    if args[0] == "fit":
        return _expand_fit(args, options.run, Path(options.runs_dir or "runs"), options.ckpt_path is not None)
    if options.run is not None:
        run = find_run(options.run, Path(options.runs_dir or "runs"))
    elif options.ckpt_path is not None and options.config is None and options.c is None:
        run = run_of_checkpoint(Path(options.ckpt_path))
    if run is None:
        return args
    command = [args[0], "--config", str(run / CONFIG), *args[1:], "--run", str(run)]
    if options.ckpt_path is None:
        command += ["--ckpt_path", str(best_checkpoint(run))]
    return command


def _expand_fit(args: list[str], name: str | None, runs_dir: Path, from_checkpoint: bool) -> list[str]:
    if name is None:
        return args
    run: Path | None
    if started_by_lightning() and RUN_VARIABLE in os.environ:  # a newer run may exist now
        run = Path(os.environ[RUN_VARIABLE]) if os.environ[RUN_VARIABLE] else None
    else:
        run = _latest_of(args, runs_dir) if name == "auto" else find_run(name, runs_dir)
        os.environ[RUN_VARIABLE] = str(run or "")
    if run is None:
        return _without_run(args)
    config = [] if name == "auto" else ["--config", str(run / CONFIG)]  # the same command line has the same settings
    command = ["fit", *config, *_without_run(args)[1:], "--run", str(run)]
    checkpoint = next((run / path for path in (LAST, BEST) if (run / path).is_file()), None)
    return command if from_checkpoint or checkpoint is None else [*command, "--ckpt_path", str(checkpoint)]


def _latest_of(command: list[str], runs_dir: Path) -> Path | None:
    """Return the latest run of a command line that is neither running nor finished."""
    # for other ranks, the run may be running already, because rank zero resumes it
    states = ("running", "finished") if is_first_process() else ("finished",)
    for run in reversed(all_runs(runs_dir)):
        info = record.read(run)
        if not info:  # for example, lost by the disk
            print(f"Skipped {run}: its {record.FILE} cannot be read. To resume it, use --run {run}")
        elif info.get("command") == command and record.state_of(run) not in states:
            return run
    return None


def _without_run(args: list[str]) -> list[str]:
    """Return a command line without ``--run``."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run")
    return parser.parse_known_args(args)[1]
