"""Parser and output paths of the commands that need no torch, which takes seconds to import."""

import itertools
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from project.errors import RunError


class LightParser(ArgumentParser):
    """Parser of ``--runs_dir`` and of runs that reports errors in one line.

    Args:
        command: Name of the command.
        description: Description in the help text.
        runs: Names of positional arguments for runs.
        with_checkpoint: Take --run or --ckpt_path, as validate and test do.
    """

    def __init__(self, command: str, description: str, runs: Sequence[str] = (), with_checkpoint: bool = False) -> None:
        super().__init__(prog=f"python -m project {command}", description=description, allow_abbrev=False)
        if with_checkpoint:
            self.add_argument("--run", help="Run directory, `last` or `best`; uses its best checkpoint.")
            self.add_argument("--ckpt_path", type=Path, metavar="FILE", help="Checkpoint, instead of the run's best.")
        for run in runs:
            self.add_argument(run, metavar=run.upper(), help="Run directory, its name in runs_dir, `last` or `best`.")
        self.add_argument("--runs_dir", type=Path, default="runs", help="Directory of all runs.")

    def error(self, message: str) -> NoReturn:
        """Print an error and the usage in one line, and exit with code 2."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        print(f"error: Expected `{usage}`: {message}.", file=sys.stderr)
        raise SystemExit(2)


def check_new(path: Path) -> None:
    """Check that nothing is at --output, so that no result is overwritten; a pipe may be there.

    Raises:
        RunError: A file or directory is.
    """
    if path.is_file() or path.is_dir():
        raise RunError(f"Expected a new file at --output, but {path} exists. Use another name, or remove it.")


def numbered(path: Path) -> Path:
    """Return a path that does not exist, with ``_2``, ``_3``, ... before the suffix if needed."""
    names = itertools.chain([path.name], (f"{path.stem}_{number}{path.suffix}" for number in itertools.count(2)))
    return next(candidate for candidate in map(path.with_name, names) if not candidate.exists())
