"""What tests of the command line share."""

import pytest

from project.__main__ import main


def stop_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code of a command that fails, and what it says on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, capsys.readouterr().err.replace("Seed set to 0\n", "")
