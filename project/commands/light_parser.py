"""What commands share that work without torch, which takes seconds to import."""

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
    """Parser that says a mistake in one line.

    Args:
        command: Name of the command.
        description: What it does.
        runs: Names of the runs that it takes by their position; `run` as `--run RUN`, too.
        with_checkpoint: Take --run or --ckpt_path, as validate and test do, rather than runs by their position.
    """

    def __init__(
        self, command: str, description: str, runs: Sequence[str] = ("run",), with_checkpoint: bool = False
    ) -> None:
        super().__init__(prog=f"python -m project {command}", description=description, allow_abbrev=False)
        if with_checkpoint:
            self.add_argument("--run", help="Folder of a run, `last` or `best`; its best checkpoint.")
            self.add_argument("--ckpt_path", type=Path, metavar="FILE", help="Checkpoint, instead of the run's best.")
        self.by_place = not with_checkpoint and "run" in runs
        for run in () if with_checkpoint else runs:
            self.add_argument(run, metavar=run.upper(), help="Folder of a run, its name in runs_dir, `last` or `best`.")
        self.add_argument("--runs_dir", default="runs", help="Folder of all runs.")

    def parse_args(self, args: Sequence[str]) -> Namespace:  # type: ignore[override]  # no namespace to fill
        """Parse, and take `--run RUN`, as other commands want it, for a run by its position."""
        if self.by_place:
            args = [arg.removeprefix("--run=") for arg in args if arg != "--run"]
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        """Say what argparse would print below its usage."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        print(f"error: Expected `{usage}`, but got a mistake: {message}.", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> int:
    """Return a whole number of 1 or more, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of 1 or more, but got {text!r}")
    return int(text)


def check_new(path: Path) -> None:
    """Check that a file is not there yet which the user names as --output: it may hold what cannot be made again.

    Raises:
        RunError: It is there, or is a folder.
    """
    if path.is_dir():
        raise RunError(f"Expected a file at --output, but {path} is a folder.")
    if path.is_file():  # rather than a pipe
        raise RunError(f"Expected a new file at --output, but {path} exists. Give another name, or remove it.")


def numbered(path: Path) -> Path:
    """Return a path with ``_2``, ``_3``, ... before its suffix if there is a file already."""
    names = itertools.chain([path.name], (f"{path.stem}_{number}{path.suffix}" for number in itertools.count(2)))
    return next(one for one in map(path.with_name, names) if not one.exists())


def json_number(value: float) -> float | str:
    """Return a number for JSON, which has no word for those that are not finite: they become strings.

    "NaN", "Infinity" and "-Infinity" are what TensorBoard's own server answers, and what Python's ``float`` and
    JavaScript's ``Number`` read.
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@contextmanager
def report_run_errors() -> Iterator[None]:
    """Turn an error about a run's folder into one line.

    Raises:
        SystemExit: With code 2; with 130 if it was interrupted, with 1 if nobody reads what it prints.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has had enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's last flush complains
        raise SystemExit(1) from None
    except (RunError, OSError) as error:
        if debugging():
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
