"""Run folders: where they are, what is in them, and what they say of a run. No torch in here."""

import csv
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

CONFIG = "config.yaml"
BEST = Path("checkpoints", "best.ckpt")


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
            raise RunError(f"Expected a run in {runs_dir} for --run last, but there is none. Start one with `fit`.")
        return max(runs, key=lambda run: [int(number) for number in re.findall(r"\d+", run.name)])
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    known = ", ".join(map(str, sorted(runs)[-3:])) or f"none in {runs_dir}"
    raise RunError(
        f"Expected the folder of a run, with {CONFIG} in it, or `last` at --run, but got {name}. Runs: {known}."
    )


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.absolute().parent.parent
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def accuracies(run: Path) -> dict[str, float]:
    """Return what a run's files say: ``train`` and ``val`` accuracy and ``epoch`` of the best epoch, ``test`` accuracy.

    A figure that the files do not hold is left out; ``test`` is that of the latest test.
    """
    found: dict[str, float] = {}
    epochs: dict[int, dict[str, float]] = {}
    for row in _metrics(run):
        epochs.setdefault(int(row.get("epoch") or 0), {}).update(
            {key: float(value) for key, value in row.items() if key != "epoch" and value}
        )
    if measured := {epoch: values for epoch, values in epochs.items() if "val/acc" in values}:
        best = max(measured, key=lambda epoch: measured[epoch]["val/acc"])  # the first of equals, as ModelCheckpoint
        found |= {"epoch": best, "val": measured[best]["val/acc"]}
        if "train/acc" in measured[best]:
            found["train"] = measured[best]["train/acc"]
    for test in sorted(run.glob("test/*")):
        for row in _metrics(test):
            if row.get("test/acc"):
                found["test"] = float(row["test/acc"])
    return found


def summary(run: Path) -> str:
    """Return the last lines of a command: where the run is, its accuracies, and what to type next."""
    known = accuracies(run)
    lines = [f"Run          {run}"]
    words = [f"{stage} {known[stage]:.2%}" for stage in ("train", "val") if stage in known]
    if words:
        words[-1] += f" (best epoch, {known['epoch'] + 1:.0f})"
    if "test" in known:
        words.append(f"test {known['test']:.2%}")
    if words:
        lines.append(f"Accuracy     {', '.join(words)}")
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
