import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from project import COMMANDS, EXTRA_COMMANDS, __version__
from project.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_torch_and_are_fast(option: str) -> None:
    code = f"import sys; from project.__main__ import main; main(['{option}']); assert 'torch' not in sys.modules"
    times = []
    for _ in range(3):
        start = os.times()
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        end = os.times()  # CPU time, which other processes on the machine do not affect
        times.append(end.children_user + end.children_system - start.children_user - start.children_system)
    assert done.stdout
    assert min(times) < 0.3


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"project {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    out = capsys.readouterr().out
    for command in (*COMMANDS, *EXTRA_COMMANDS):
        assert f"python -m project {command} " in out


def test_characters_that_a_terminal_cannot_encode_do_not_fail_a_command(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--trainer.limit_train_batches=1", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=true"]
    options += ["--callbacks=false"]
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    sys.stdout.flush()
    assert b"Accuracy" in shown.getvalue()


def test_mistyped_command_suggests_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fitt"])
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err == "error: Expected a command (fit, validate, test, prepare, preview, "
        "predict, export, report, runs, sweep, find-lr, doctor, schema), but got 'fitt'. Did you mean fit?\n"
    )
