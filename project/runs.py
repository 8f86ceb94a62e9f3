"""Run folders: where they are, what is in them, and what they say of a run. No torch in here."""

import csv
import os
import re
import shlex
import shutil
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import yaml

CONFIG = "config.yaml"
STAGES = {"validate": "val", "test": "test"}  # what a command measures
BEST = Path("checkpoints", "best.ckpt")
REPORT = "report.html"


class RunError(Exception):
    """A run was named that does not exist or is not complete."""


def create_folder(parent: Path) -> Path:
    """Make and return ``parent/<yyyy-mm-dd_hh-mm-ss>``, with ``_2``, ``_3``, ... behind it if that exists."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
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


def find_run(name: str, runs_dir: Path) -> Path:
    """Return the folder of a run that is named by its path or as "last", the run that was started last.

    Raises:
        RunError: There is no such run.
    """
    runs = [config.parent for config in runs_dir.glob(f"*/*/{CONFIG}")]
    if name == "last":
        if not runs:
            raise RunError(f"Expected a run in {runs_dir} for `last`, but there is none. Start one with `fit`.")
        return max(runs, key=lambda run: [int(number) for number in re.findall(r"\d+", run.name)])
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    known = ", ".join(map(str, sorted(runs)[-3:])) or f"none in {runs_dir}"
    raise RunError(f"Expected the folder of a run, with {CONFIG} in it, or `last`, but got {name}. Runs: {known}.")


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.absolute().parent.parent
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def expand_run(args: list[str]) -> list[str]:
    """Replace a run, or a checkpoint without a config, by the run's saved config and its checkpoint.

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


def best_validation(run: Path, metric: str = "acc") -> dict[str, float]:
    """Return what a run's files say: ``train`` and ``val`` accuracy, or loss, and ``epoch`` of the best validation.

    A figure that the files do not hold is left out.
    """
    rows = _metrics(run)
    validations = [row for row in rows if row.get(f"val/{metric}")]
    if not validations:
        return {}
    choose = max if metric == "acc" else min
    best = choose(validations, key=lambda row: float(row[f"val/{metric}"]))  # the first of equals, as ModelCheckpoint
    found = {"epoch": float(best["epoch"]), "val": float(best[f"val/{metric}"])}
    train = [row[f"train/{metric}"] for row in rows if row.get(f"train/{metric}") and row["epoch"] == best["epoch"]]
    return found | ({"train": float(train[-1])} if train else {})


def measured(output: Path) -> str:
    """Return what a validation or test found, as its folder says it: "test 71.20% by checkpoints/best.ckpt"."""
    stage = STAGES.get(output.parent.name)
    found = [
        f"{stage} {'' if metric == 'acc' else 'loss '}{shown(float(row[key]), metric)}"
        for metric in ("acc", "loss")
        for row in _metrics(output)
        if row.get(key := f"{stage}/{metric}")
    ]
    if not found:
        return ""
    config = yaml.safe_load((output / CONFIG).read_text())
    limit = config["trainer"].get(f"limit_{stage}_batches")
    part = "" if limit is None else f", on a part of the images (limit_{stage}_batches {limit})"
    weights = config.get("ckpt_path") or config["model"]["init_args"].get("pretrained")
    return f"{found[0]} by {weights}{part}"


def shown(value: float, metric: str) -> str:
    """Return an accuracy in percent, or a loss in four digits."""
    return f"{value:.2%}" if metric == "acc" else f"{value:.4g}"


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
        lines.append(f"Measured     {words}")
    if (run / REPORT).is_file():
        lines.append(f"Report       {run / REPORT}")
    lines.append(f"TensorBoard  {_python()} -m tensorboard.main --logdir {shlex.quote(str(run))}")
    if (run / BEST).is_file():
        lines.append(f"Test         {_python()} -m project test --run {shlex.quote(str(run))}")
    return "\n".join(lines)


def _metrics(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _python() -> str:
    """Return how the user can start this very Python."""
    found = shutil.which("python")
    if found and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    executable = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if executable.startswith("..") else executable)
