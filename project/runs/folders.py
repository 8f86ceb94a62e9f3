"""Create and find run directories, checkpoints and tests. Imports no torch."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from project.errors import RunError
from project.runs import record
from project.runs.config import BEST, CONFIG, load_config, setting
from project.runs.results import read_result

REPORT = "report.html"
TIME = "%Y-%m-%d_%H-%M-%S"  # in names of run directories


def create_folder(parent: Path, name: str | None = None) -> Path:
    """Create and return ``parent/<yyyy-mm-dd_hh-mm-ss>``, followed by ``_<name>``, and by ``_2``, ... if that exists.

    Raises:
        RunError: The name has other characters than letters, digits, and ``_ - + = . ,``.
    """
    if name is not None and not re.fullmatch(r"[\w+=.,-]+", name):
        raise RunError(f"Expected --name of letters, digits, and _ - + = . , but got {name!r}.")
    name = datetime.now().strftime(TIME) + ("" if name is None else f"_{name}")
    parent.mkdir(parents=True, exist_ok=True)
    attempt = 1
    while True:
        folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            attempt += 1


def name_of(configs: Sequence[str]) -> str:
    """Return the name of runs of stacked configs: "resnet-sample" for resnet.yaml and sample.yaml."""
    names = []
    for config in map(Path, configs):
        inside_run = config.name == CONFIG and config.parent.parent.name
        names.append(config.parent.parent.name if inside_run else config.stem)
    return "-".join(names) or "default"


def all_runs(runs_dir: Path) -> list[Path]:
    """Return all run directories, in the order of their start."""
    return sorted((config.parent for config in runs_dir.glob(f"*/*/{CONFIG}")), key=by_start)


def by_start(run: Path) -> tuple[str, list[int], str]:
    """Return a key that sorts runs by their start."""
    numbers = [int(number) for number in re.findall(r"\d+", run.name)]
    return str(record.read(run).get("started", "")), numbers, str(run)


def find_run(name: str, runs_dir: Path) -> Path:
    """Return the directory of a run.

    Args:
        name: The path; a unique end of the path ("lenet/2026-11-21_14-54-20", or only the time); a unique --name;
            "last", the run that was started last; or "best", which prints the run with the highest validation accuracy
            of those on the data of the last run.
        runs_dir: Directory of all runs.

    Raises:
        RunError: No run matches, or more than one.
    """
    runs = all_runs(runs_dir)
    if name == "last":
        if not runs:
            raise RunError(f"Expected a run in {runs_dir} for `last`, but found none.")
        return runs[-1]
    if name == "best":
        results = {run: read_result(run)[0] for run in runs}
        known = {run: x for run, x in results.items() if x.metric == "acc" and x.val is not None}
        if not known:
            raise RunError(f"Expected a run with a validation accuracy in {runs_dir} for `best`, but found none.")
        last = list(known.values())[-1]
        same = {run: x.val or 0.0 for run, x in known.items() if (x.data, x.root) == (last.data, last.root)}
        best = max(same, key=lambda run: same[run])  # the first if equal
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"Best of {len(same)} runs on {last.root}: {best} (val {same[best]:.2%})", file=sys.stderr)
        return best
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    matches = [run for run in runs if folder.parts and run.parts[-len(folder.parts) :] == folder.parts]
    matches = matches or [run for run in runs if re.fullmatch(rf"[\d_-]{{19}}_{re.escape(name)}(_\d+)?", run.name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunError(f"Expected the name of one run, but {name} matches {', '.join(map(str, matches))}.")
    names = {label: str(run) for run in runs for label in (run.name, f"{run.parent.name}/{run.name}", str(run))}
    names |= {"last": "`last`", "best": "`best`"}
    near = dict.fromkeys(names[label] for label in get_close_matches(name, names))
    others = ", ".join(near or map(str, runs[-3:])) or f"none in {runs_dir}"
    raise RunError(
        f"Expected a run directory with {CONFIG}, its name in {runs_dir}, `last` or `best`, but got {name}. "
        f"{'Similar runs' if near else 'Runs'}: {others}."
    )


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """Return the run directory of a checkpoint, or None if it is not in one."""
    folder = checkpoint.absolute().parent.parent
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def check_data_folder(run: Path, data: Mapping[str, Any]) -> None:
    """Check that a run's data exists, if its path is relative and the run was started in another directory.

    Args:
        run: Run directory.
        data: Arguments of the DataModule; those that differ from the run's config are not checked.

    Raises:
        RunError: It does not exist, and would be downloaded or prepared again.
    """
    start = (run / (record.read(run).get("working_directory") or Path.cwd())).resolve()
    if start == Path.cwd().resolve():
        return
    of_run = setting(load_config(run), "data.init_args") or {}
    for name in ("root", "images", "archive"):
        path = data.get(name)
        if path is not None and path == of_run.get(name) and not os.path.isabs(path) and not os.path.exists(path):
            raise RunError(
                f"Expected the data of {run} in {path}, but it is not in this directory. Run the command in {start}, "
                f"or set --data.{name}."
            )


def find_checkpoint(name: str | None, runs_dir: Path, checkpoint: Path | None) -> tuple[Path | None, Path]:
    """Return a run directory and a checkpoint: the given one, or the run's best.

    The directory is None if only a checkpoint is given, and is not in a run directory.

    Raises:
        RunError: The run or checkpoint does not exist, or neither is given.
    """
    if checkpoint is None:
        if name is None:
            raise RunError("Expected a run. Set --run last, --run best, --run DIRECTORY, or --ckpt_path FILE.")
        run = find_run(name, runs_dir)
        return run, best_checkpoint(run)
    if not checkpoint.is_file():
        raise RunError(f"Expected a checkpoint at --ckpt_path, but {checkpoint} does not exist.")
    return run_of_checkpoint(checkpoint) if name is None else find_run(name, runs_dir), checkpoint


def best_checkpoint(run: Path) -> Path:
    """Return the best checkpoint of a run.

    Raises:
        RunError: It has no best checkpoint.
    """
    if not (run / BEST).is_file():
        raise RunError(
            f"Expected {run / BEST}, which is written after the first validation, but it does not exist. Use another "
            "--run, or --ckpt_path."
        )
    return run / BEST
