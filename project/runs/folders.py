"""Run folders: where they are, what is in them, how to name one. No torch in here."""

import json
import os
import re
import shlex
import shutil
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from project.cli.arguments import config_files, option_of, split_options
from project.runs import record
from project.runs.config import BEST, CONFIG, LAST, RESULTS, DuplicateKeyError, load_config, nested, read_yaml, setting
from project.runs.metrics import age_in_words, best_validation, circumstances, measured, shown
from project.runs.ranks_env import is_first_process, started_by_lightning
from project.runs.record import RunError

REPORT = "report.html"
TIME = "%Y-%m-%d_%H-%M-%S"  # in names of folders
PATHS = (  # settings that are paths, relative to the working directory of the run
    *("data.init_args.root", "data.init_args.images", "data.init_args.archive"),
    *("model.init_args.pretrained", "model.init_args.teacher", "ckpt_path"),
)
FOUND = "PROJECT_RUN"  # environment variable: which run the first process has found


def create_folder(parent: Path) -> Path:
    """Make and return ``parent/<yyyy-mm-dd_hh-mm-ss>``, with ``_2``, ``_3``, ... behind it if that exists."""
    name = datetime.now().strftime(TIME)
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
    """Return the folders of all runs, in the order of their start."""
    return sorted((config.parent for config in runs_dir.glob(f"*/*/{CONFIG}")), key=by_start)


def by_start(run: Path) -> tuple[float, list[int], str]:
    """Return what sorts runs by their start, which ``run.json`` tells, or else the name."""
    numbers = [int(number) for number in re.findall(r"\d+", run.name)]
    try:
        started = datetime.fromisoformat(str(record.read(run).get("started"))).timestamp()
    except ValueError:  # no such file
        try:
            started = datetime.strptime(run.name[:19], TIME).timestamp()
        except ValueError:  # a name of the user's own
            started = 0.0
    return started, numbers, str(run)


def find_run(name: str, runs_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        name: Its path; or the end of it that no other run has ("lenet/2026-11-21_14-54-20", or the time alone); "last",
            the run that was started last; or "best", that of the highest validation accuracy, on whatever data.
        runs_dir: Folder of all runs.

    Raises:
        RunError: There is no such run, or more than one.
    """
    runs = all_runs(runs_dir)
    if name == "last":
        if not runs:
            raise RunError(f"Expected a run in {runs_dir} for `last`, but there is none. Start one with `fit`.")
        return runs[-1]
    if name == "best":
        accuracies = {run: best["val"] for run in runs if (best := best_validation(run))}
        if not accuracies:
            raise RunError(
                f"Expected a run with a validation accuracy in {runs_dir} for `best`, but there is none. "
                "Start one with `fit`."
            )
        return max(accuracies, key=lambda run: accuracies[run])  # the first of equals
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    found = [run for run in runs if folder.parts and run.parts[-len(folder.parts) :] == folder.parts]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(f"Expected the name of one run, but {name} is that of {', '.join(map(str, found))}.")
    names = {label: str(run) for run in runs for label in (run.name, f"{run.parent.name}/{run.name}", str(run))}
    names |= {"last": "`last`", "best": "`best`"}
    near = dict.fromkeys(names[label] for label in get_close_matches(name, names))
    known = ", ".join(near or map(str, runs[-3:])) or f"none in {runs_dir}"
    raise RunError(
        f"Expected the folder of a run, with {CONFIG} in it, its name in {runs_dir}, `last` or `best`, but got {name}. "
        f"{'Near' if near else 'Runs'}: {known}."
    )


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.absolute().parent.parent
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def working_directory(run: Path) -> str:
    """Return the working directory for run.json: relative to a run directory within it, or else absolute.

    A project can thus be moved or copied together with its runs.
    """
    here, there = Path.cwd().resolve(), run.resolve()
    return os.path.relpath(here, there) if there.is_relative_to(here) else str(here)


def paths_from_here(run: Path) -> dict[str, str]:
    """Return the relative paths in a run's config, as absolute paths by key, if its working directory was another one.

    A path that exists only relative to the present working directory is left out.
    """
    info = record.read(run)
    if not info:  # a config that is not in a run directory
        return {}
    config = load_config(run)
    runs_dir = Path(str(config.get("runs_dir")))  # a run is two levels below it
    start = info.get("working_directory") or ("" if runs_dir.is_absolute() else "../" * (2 + len(runs_dir.parts)))
    folder = (run.resolve() / start).resolve()
    if not start or folder == Path.cwd().resolve():
        return {}
    given = {key: value for key in PATHS if isinstance(value := setting(config, key), str)}
    there = {key: (folder / value, Path(value)) for key, value in given.items() if not os.path.isabs(value)}
    return {key: str(path) for key, (path, here) in there.items() if path.exists() or not here.exists()}


def _sets_root(file: Path) -> bool:
    """Return whether a config sets the data folder; a config that cannot be read is reported when it is parsed."""
    with suppress(yaml.YAMLError, DuplicateKeyError, UnicodeDecodeError, OSError):
        config = read_yaml(file.read_text(encoding="utf-8"))
        return isinstance(config, dict) and bool(setting(config, PATHS[0]))
    return False


def with_paths(args: list[str]) -> list[str]:
    """Return a command line in which paths in configs of runs are relative to the working directories of these runs.

    Raises:
        RunError: A run's images are missing there, and would be downloaded again, into another directory.
    """
    groups = split_options(args)
    names = {option_of(group)[0] for group in groups}
    if any(_sets_root(file) for file in config_files(args) if file.name != CONFIG):
        names.add(PATHS[0])
    result = []
    for group in groups:
        result += group
        name, value = option_of(group)
        if name != "config" or value is None or os.path.basename(value) != CONFIG or not os.path.isfile(value):
            continue
        paths = paths_from_here(Path(value).parent)
        root = paths.get(PATHS[0])
        if root is not None and not os.path.exists(root) and not names & {"data", "data.root", PATHS[0]}:
            raise RunError(
                f"Expected the images of {Path(value).parent} in {root}, as when it was started, but this directory "
                "does not exist. Set --data.root."
            )
        if paths:
            result += ["--config", json.dumps(nested(paths))]
    return result


def expand_run(args: list[str]) -> list[str]:
    """Replace a run, or a checkpoint without a config, by the run's saved config and its checkpoint.

    ``fit`` goes on from the last checkpoint, or from the start if there is none yet; with ``--run auto`` it goes on
    with the latest run of the same command line that is neither running nor finished, as the files which the command
    line names have it now, and starts a new one if there is none. Processes that Lightning starts take the run of the
    one that started them.

    Raises:
        RunError: There is no such run, or it has no best checkpoint.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--run", "--runs_dir", "--ckpt_path", "--config", "-c"):
        parser.add_argument(option)
    try:
        given, _ = parser.parse_known_args(args[1:])
    except ArgumentError as error:
        raise RunError(f"Expected a value for {error.argument_name}, but got none.") from error
    run = None
    if args[0] == "fit":
        return _expand_fit(args, given.run, Path(given.runs_dir or "runs"), given.ckpt_path is not None)
    if given.run is not None:
        run = find_run(given.run, Path(given.runs_dir or "runs"))
    elif given.ckpt_path is not None and given.config is None and given.c is None:
        run = run_of_checkpoint(Path(given.ckpt_path))
    if run is None:
        return args
    expanded = [args[0], "--config", str(run / CONFIG), *args[1:], "--run", str(run)]
    if given.ckpt_path is None:
        expanded += ["--ckpt_path", str(best_checkpoint(run))]
    return expanded


def _expand_fit(args: list[str], name: str | None, runs_dir: Path, from_checkpoint: bool) -> list[str]:
    if name is None:
        return args
    run: Path | None
    if started_by_lightning() and FOUND in os.environ:  # by now, another may be the last
        run = Path(os.environ[FOUND]) if os.environ[FOUND] else None
    else:
        run = _latest_of(args, runs_dir) if name == "auto" else find_run(name, runs_dir)
        os.environ[FOUND] = str(run or "")
    if run is None:
        return _without_run(args)
    config = [] if name == "auto" else ["--config", str(run / CONFIG)]  # the same command line says the same again
    expanded = ["fit", *config, *_without_run(args)[1:], "--run", str(run)]
    checkpoint = next((run / one for one in (LAST, BEST) if (run / one).is_file()), None)
    return expanded if from_checkpoint or checkpoint is None else [*expanded, "--ckpt_path", str(checkpoint)]


def find_checkpoint(name: str | None, runs_dir: Path, checkpoint: Path | None) -> tuple[Path | None, Path]:
    """Return the folder of a run and a checkpoint: that which is given, or the run's best.

    The folder is None if only a checkpoint is given, and lies in no run.

    Raises:
        RunError: There is no such run or checkpoint, or neither is given.
    """
    if checkpoint is None:
        if name is None:
            raise RunError("Expected a run: give --run last, --run best, --run FOLDER, or --ckpt_path FILE.")
        run = find_run(name, runs_dir)
        return run, best_checkpoint(run)
    if not checkpoint.is_file():
        raise RunError(f"Expected a checkpoint at --ckpt_path, but {checkpoint} does not exist.")
    return run_of_checkpoint(checkpoint) if name is None else find_run(name, runs_dir), checkpoint


def best_checkpoint(run: Path) -> Path:
    """Return the best checkpoint of a run.

    Raises:
        RunError: It has none.
    """
    if not (run / BEST).is_file():
        raise RunError(
            f"Expected {run / BEST}, but it does not exist: the run ended before its first validation, or kept no "
            "checkpoints. Give another --run, or --ckpt_path."
        )
    return run / BEST


def _latest_of(command: list[str], runs_dir: Path) -> Path | None:
    """Return the latest run of a command line that neither runs nor is finished."""
    # to the other processes of a training, the run that rank zero goes on with may be running by now
    others = ("running", "finished") if is_first_process() else ("finished",)
    for run in reversed(all_runs(runs_dir)):
        told = record.read(run)
        if not told:  # of a disk that lost it, say
            print(f"No {record.FILE} can be read in {run}: it may be another's. To go on with it, give --run {run}")
        elif told.get("command") == command and record.state_of(run) not in others:
            return run
    return None


def _without_run(args: list[str]) -> list[str]:
    """Return a command line without ``--run``."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run")
    return parser.parse_known_args(args)[1]


def tests_of(run: Path) -> list[Path]:
    """Return the folders of the tests of a run; the one to show is last.

    Tests of the present best checkpoint on all of the run's data come after others, and later tests after earlier ones.

    Raises:
        RunError: The config of a test is not YAML.
        OSError: A file of a test cannot be read.
    """

    def order(test: Path) -> Any:
        under = circumstances(test)
        return not under.is_old, under.is_usual, by_start(test)

    return sorted({file.parent for file in run.glob(f"test/*/{CONFIG}")}, key=order)


def times_tested(run: Path) -> int:
    """Return how often a run has been tested."""
    return sum(1 for _ in run.glob(f"test/*/{RESULTS}"))


def summary(run: Path, output: Path) -> str:
    """Return the last lines of a command: where the run is, its accuracies, and what to type next.

    Args:
        run: Folder of the run.
        output: Folder that the command wrote to: the run's, or that of a validation or test below it.
    """
    lines = [f"Run          {run}"]
    metric = "acc" if best_validation(run) else "loss"  # of an autoencoder, say
    known = best_validation(run, metric)
    words = ", ".join(f"{stage} {shown(known[stage], metric)}" for stage in ("train", "val") if stage in known)
    if words:
        what = "Accuracy    " if metric == "acc" else "Loss        "
        lines.append(f"{what} {words} (best validation, epoch {known['epoch'] + 1:.0f})")
    if output != run and (words := measured(output)):
        tested = times_tested(run) if output.parent.name == "test" else 0
        times = f"; test {tested} of this run: no choice may follow from it" if tested > 1 else ""
        lines.append(f"Measured     {words}{times}")
    elif output == run:
        with suppress(RunError, OSError):  # a test is damaged
            if (tests := tests_of(run)) and (under := circumstances(tests[-1])).is_old:
                lines.append(f"Measured     {age_in_words(under)}")
    if (run / REPORT).is_file():
        lines.append(f"Report       {run / REPORT}")
    lines.append(f"TensorBoard  {typed('tensorboard.main', '--logdir', run)}")
    if (run / BEST).is_file():
        lines.append(f"Test         {typed('project', 'test', '--run', run)}")
    return "\n".join(lines)


def typed(module: str, *args: str | Path) -> str:
    """Return how the user can start a module by this very Python, with arguments that a shell leaves whole."""
    return f"{_python()} -m {module} {shlex.join(map(str, args))}"


def _python() -> str:
    found = shutil.which("python")
    if found and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    executable = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if executable.startswith("..") else executable)
