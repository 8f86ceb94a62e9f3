"""Parser, output paths and error handling of the commands that need no torch, which takes seconds to import."""

import itertools
import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from project.errors import RunError, debugging


class LightParser(ArgumentParser):
    """Parser that reports errors in one line.

    Args:
        command: Name of the command.
        description: Description in the help text.
        runs: Names of positional arguments for runs; `run` is also accepted as `--run RUN`.
        with_checkpoint: Take --run or --ckpt_path, as validate and test do, instead of positional arguments.
    """

    def __init__(
        self, command: str, description: str, runs: Sequence[str] = ("run",), with_checkpoint: bool = False
    ) -> None:
        super().__init__(prog=f"python -m project {command}", description=description, allow_abbrev=False)
        if with_checkpoint:
            self.add_argument("--run", help="Run directory, `last` or `best`; uses its best checkpoint.")
            self.add_argument("--ckpt_path", type=Path, metavar="FILE", help="Checkpoint, instead of the run's best.")
        self.is_positional = not with_checkpoint and "run" in runs
        for run in () if with_checkpoint else runs:
            self.add_argument(run, metavar=run.upper(), help="Run directory, its name in runs_dir, `last` or `best`.")
        self.add_argument("--runs_dir", default="runs", help="Directory of all runs.")

    def parse_args(self, args: Sequence[str]) -> Namespace:  # type: ignore[override]  # without a namespace argument
        """Parse; `--run RUN`, as in other commands, is the same as a positional run."""
        if self.is_positional:
            args = [arg.removeprefix("--run=") for arg in args if arg != "--run"]
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        """Print an error and the usage in one line, and exit with code 2."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        print(f"error: Expected `{usage}`: {message}.", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> int:
    """Convert the value of an option to an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected an integer of 1 or more, but got {text!r}")
    return int(text)


def check_new(path: Path) -> None:
    """Check that the file at --output does not exist, so that no result is overwritten.

    Raises:
        RunError: It exists, or is a directory.
    """
    if path.is_dir():
        raise RunError(f"Expected a file at --output, but {path} is a directory.")
    if path.is_file():  # a pipe may exist
        raise RunError(f"Expected a new file at --output, but {path} exists. Use another name, or remove it.")


def numbered(path: Path) -> Path:
    """Return a path that does not exist, with ``_2``, ``_3``, ... before the suffix if needed."""
    names = itertools.chain([path.name], (f"{path.stem}_{number}{path.suffix}" for number in itertools.count(2)))
    return next(candidate for candidate in map(path.with_name, names) if not candidate.exists())


def json_number(value: float) -> float | str:
    """Return a number for JSON; NaN and Inf, which JSON cannot represent, become strings.

    "NaN", "Infinity" and "-Infinity" are what TensorBoard's server returns, and what Python's ``float`` and
    JavaScript's ``Number`` parse.
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@contextmanager
def report_run_errors() -> Iterator[None]:
    """Print a RunError or OSError in one line, and exit.

    Raises:
        SystemExit: With code 2 after an error, 130 after Ctrl-C, and 1 if the reader of a pipe exited.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # the reader exited, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise, Python's last flush fails
        raise SystemExit(1) from None
    except (RunError, OSError) as error:
        if debugging():
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
