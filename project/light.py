"""What commands share that work without torch, which takes seconds to import."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from project.runs import RunError


class LightParser(ArgumentParser):
    """Parser that says a mistake in one line."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"python -m project {command}", description=description, allow_abbrev=False)
        self.add_argument("run", metavar="RUN", help="Folder of a run, or `last`.")
        self.add_argument("--runs_dir", default="runs", help="Folder of all runs, for `last`.")

    def error(self, message: str) -> NoReturn:
        """Say what argparse would print below its usage."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        print(f"error: Expected `{usage}`, but got a mistake: {message}.", file=sys.stderr)
        raise SystemExit(2)


def debugging() -> bool:
    """Tell whether the user asked for whole tracebacks."""
    return os.environ.get("PROJECT_DEBUG", "") not in ("", "0")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error about a run's folder into one line.

    Raises:
        SystemExit: With code 2.
    """
    try:
        yield
    except (RunError, OSError) as error:
        if debugging():
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
