"""What is printed at the end of a command about a run."""

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from project.errors import RunError
from project.runs.config import BEST
from project.runs.folders import REPORT, tests_of, times_tested
from project.runs.metrics import age_in_words, best_validation, circumstances, measured, shown


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
    lines.append(f"TensorBoard  {shell_command('tensorboard.main', '--logdir', run)}")
    if (run / BEST).is_file() and output.parent.name != "test":
        lines.append(f"Test         {shell_command('project', 'test', '--run', run)}")
    return "\n".join(lines)


def shell_command(module: str, *args: str | Path) -> str:
    """Return how the user can start a module by this very Python, with arguments that a shell leaves whole."""
    return f"{_python()} -m {module} {shlex.join(map(str, args))}"


def _python() -> str:
    found = shutil.which("python")
    if found and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    executable = os.path.relpath(sys.executable)
    return shlex.quote(sys.executable if executable.startswith("..") else executable)
