"""The facts at the top of a report: results, state and checkpoint."""

import os
from pathlib import Path

import pytest
from report_runs import write_run, write_test

from project.report.outcome import facts
from project.report.read import read_run
from project.runs import record


@pytest.mark.parametrize(
    ("state", "epochs", "shown"),
    [
        ("finished", 3, ("finished", "3 of 3 planned epochs, less than a minute")),
        ("finished", 2, ("stopped early", "2 of 3 planned epochs, less than a minute")),
        ("interrupted", 2, ("interrupted", "2 of 3 planned epochs, less than a minute")),
        ("failed", 2, ("failed", "2 of 3 planned epochs, less than a minute, no memory")),
    ],
)
def test_state_says_whether_training_was_stopped(
    tmp_path: Path, state: str, epochs: int, shown: tuple[str, str]
) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00", epochs=epochs)
    record.begin(run, ["fit"])
    assert facts(read_run(run))[2][1] in ("finished", "stopped early")  # fit itself writes the report
    record.end(run, state, 1.0, "no memory" if state == "failed" else None)
    assert facts(read_run(run))[2] == ("Training", *shown)


def test_run_of_another_process_is_running_or_was_killed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00", epochs=2)
    (run / record.FILE).write_text(f'{{"state": "running", "pid": {os.getppid()}}}')
    (run / record.LOCK).touch()
    assert facts(read_run(run))[2][1] == "killed"


def test_results_and_checkpoint_are_facts(finished_run: Path) -> None:
    names, values, remarks = zip(*facts(read_run(finished_run)), strict=True)
    assert names == ("Validation", "Test", "Training", "Checkpoint")
    assert values[0].endswith("%")
    assert values[3].startswith("epoch ")
    assert remarks[3] == "checkpoints/best.ckpt"


def test_result_of_a_test_names_its_weights(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a/2026-11-21_10-00-00")
    write_test(run)
    assert facts(read_run(run))[1] == ("Test", "62.50%", "checkpoints/best.ckpt")
