"""Format the summary that a command prints at its end."""

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from project.errors import RunError
from project.runs.config import BEST
from project.runs.folders import REPORT, tests_of, times_tested
from project.runs.metrics import age_text, best_validation, circumstances, format_metric, measurement_text


def summary(run: Path, output: Path) -> str:
    """Return the last lines of a command: run directory, accuracies, and the next commands.

    Args:
        run: Run directory.
        output: Directory that the command wrote to: the run directory, or that of a validation or test.
    """
    lines = [f"Run          {run}"]
    metric = "acc" if best_validation(run) else "loss"  # for example, an autoencoder
    best = best_validation(run, metric)
    words = ", ".join(f"{stage} {format_metric(best[stage], metric)}" for stage in ("train", "val") if stage in best)
    if words:
        what = "Accuracy    " if metric == "acc" else "Loss        "
        lines.append(f"{what} {words} (best validation, epoch {best['epoch'] + 1:.0f})")
    if output != run and (words := measurement_text(output)):
        tested = times_tested(run) if output.parent.name == "test" else 0
        times = f"; test {tested} of this run: do not select models by it" if tested > 1 else ""
        lines.append(f"Measured     {words}{times}")
    elif output == run:
        with suppress(RunError, OSError):  # a damaged test
            if (tests := tests_of(run)) and (setup := circumstances(tests[-1])).is_old:
                lines.append(f"Measured     {age_text(setup)}")
    if (run / REPORT).is_file():
        lines.append(f"Report       {run / REPORT}")
    lines.append(f"TensorBoard  {shell_command('tensorboard.main', '--logdir', run)}")
    if (run / BEST).is_file() and output.parent.name != "test":
        lines.append(f"Test         {shell_command('project', 'test', '--run', run)}")
    return "\n".join(lines)


def shell_command(module: str, *args: str | Path) -> str:
    """Return a shell command that runs a module with this Python; arguments are quoted."""
    return f"{_python()} -m {module} {shlex.join(map(str, args))}"


def _python() -> str:
    python = shutil.which("python")
    if python and Path(python).absolute() == Path(sys.executable).absolute():
        return "python"
    executable = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if executable.startswith("..") else executable)
