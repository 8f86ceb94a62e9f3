from pathlib import Path

import pytest
from report_runs import write_config, write_run, write_test

from project.runs import record
from project.runs.config import load_config
from project.runs.outcome import facts, numbers, subject
from project.runs.results import read_result

TIME = "2026-11-21_10-00-00"


def facts_of(run: Path) -> list[tuple[str, str, str]]:
    return facts(run, read_result(run)[0])


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
    run = write_run(tmp_path / "a" / TIME, epochs=epochs)
    record.begin(run, ["fit"])
    assert facts_of(run)[2][1] in ("finished", "stopped early")  # fit itself writes the report
    record.end(run, state, 1.0, "no memory" if state == "failed" else None)
    assert facts_of(run)[2] == ("Training", *shown)


def test_facts_of_a_run_have_the_results(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / TIME)
    assert subject(load_config(run)) == "ResNet (depth 20) on SampleDataModule"
    assert facts_of(run) == [
        ("Validation", "65.40%", "best accuracy at epoch 3"),
        ("Test", "not tested", ""),
        ("Training", "state not recorded", "3 of 3 planned epochs"),
        ("Checkpoint", "none", ""),
    ]
    write_test(run, 0.5, "2026-11-21_11-00-00", epoch=1)
    write_test(run, 0.625)
    write_config(run / "test/2026-11-21_13-00-00")  # has just started
    (run / "checkpoints").mkdir()
    (run / "checkpoints/last.ckpt").touch()
    assert facts_of(run)[1] == ("Test", "62.50%", "checkpoints/best.ckpt of epoch 2, the latest of 2 tests")
    assert facts_of(run)[3] == ("Checkpoint", "checkpoints/last.ckpt", "")
    assert numbers(run, read_result(run)[0])["test accuracy"] == (0.625, "acc")
