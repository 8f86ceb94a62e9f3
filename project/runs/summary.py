"""Format the summary that a command prints at its end."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from project.runs.config import BEST
from project.runs.folders import REPORT
from project.runs.metrics import format_metric
from project.runs.results import STAGES, read_evaluation, read_result


def summary(run: Path, output: Path) -> str:
    """Return the last lines of a command that wrote to ``output``: run directory, accuracies, and the next commands."""
    lines, (result, _) = [f"Run          {run}"], read_result(run)
    if result.val is not None and result.metric is not None:
        title = "Accuracy" if result.metric == "acc" else "Loss"  # for example, of an autoencoder
        train = "" if result.train is None else f"train {format_metric(result.train, result.metric)}, "
        val = format_metric(result.val, result.metric)
        lines.append(f"{title:12} {train}val {val} (best validation, epoch {result.val_epoch})")
    if output == run and result.test is None and result.test_note is not None:  # of an older best.ckpt
        lines.append(f"Measured     {result.test_note}")
    if output != run and (evaluation := read_evaluation(output)) is not None:
        kind = "" if evaluation.metric == "acc" else "loss "
        value = format_metric(evaluation.value, evaluation.metric)
        line = f"Measured     {STAGES[output.parent.name]} {kind}{value} by {evaluation.description}"
        repeated = output.parent.name == "test" and result.tests > 1
        lines.append(line + (f"; test {result.tests} of this run: do not select models by it" if repeated else ""))
    if (run / REPORT).is_file():
        lines.append(f"Report       {run / REPORT}")
    lines.append(f"TensorBoard  {shell_command('tensorboard.main', '--logdir', run)}")
    if (run / BEST).is_file() and output.parent.name != "test":
        lines.append(f"Test         {shell_command('project', 'test', '--run', run)}")
    return "\n".join(lines)


def shell_command(module: str, *args: str | Path) -> str:
    """Return a shell command that runs a module with this Python; arguments are quoted."""
    python = shutil.which("python")
    name = "python"
    if python is None or Path(python).absolute() != Path(sys.executable).absolute():
        relative = os.path.relpath(sys.executable)
        name = shlex.quote(sys.executable if relative.startswith("..") else relative)
    return f"{name} -m {module} {shlex.join(map(str, args))}"
