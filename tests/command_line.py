"""Helpers for tests of the command line."""

import pytest

from project.__main__ import main


def stop_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and stderr of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, capsys.readouterr().err.replace("Seed set to 0\n", "")
