import os
from pathlib import Path

import pytest
from report_runs import write_config, write_metrics, write_run, write_test

from project.runs import record
from project.runs.outcome import facts, numbers, sentence
from project.runs.results import read_result

TIME = "2026-11-21_10-00-00"


def facts_of(run: Path) -> list[tuple[str, str, str]]:
    return facts(run, read_result(run)[0])


def sentence_of(run: Path) -> str:
    return sentence(run, read_result(run)[0])


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


def test_run_of_another_process_is_running_or_was_killed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / TIME, epochs=2)
    (run / record.FILE).write_text(f'{{"state": "running", "pid": {os.getppid()}}}')
    (run / record.LOCK).touch()
    assert facts_of(run)[2][1] == "killed"


def test_results_and_checkpoint_are_facts(finished_run: Path) -> None:
    names, values, remarks = zip(*facts_of(finished_run), strict=True)
    assert names == ("Validation", "Test", "Training", "Checkpoint")
    assert values[0].endswith("%")
    assert values[3].startswith("epoch ")
    assert remarks[3] == "checkpoints/best.ckpt"


def test_sentence_has_the_results(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / TIME)
    assert sentence_of(run) == (
        "ResNet (depth 20) on SampleDataModule: validation 65.40% (best accuracy at epoch 3), test not tested, "
        "training state not recorded (3 of 3 planned epochs), checkpoint none."
    )
    write_test(run, 0.5, "2026-11-21_11-00-00", epoch=1)
    write_test(run, 0.625)
    write_config(run / "test/2026-11-21_13-00-00")  # has just started
    assert "test 62.50% (checkpoints/best.ckpt of epoch 2, the latest of 2 tests), " in sentence_of(run)
    assert numbers(run, read_result(run)[0])["test accuracy"] == (0.625, "acc")


def test_best_validation_is_that_of_the_monitored_metric(tmp_path: Path) -> None:
    run = write_config(tmp_path / "a" / TIME)
    values = enumerate([(0.5, 0.9), (0.75, 0.8), (0.6, 0.7), (0.65, 0.7)])
    write_metrics(
        run, [{"step": i, "epoch": i, "val/acc": accuracy, "val/loss": loss} for i, (accuracy, loss) in values]
    )
    assert facts_of(run)[0] == ("Validation", "75.00%", "best accuracy at epoch 2")
    with (run / "config.yaml").open("a") as file:
        file.write("checkpoint: {monitor: val/loss, mode: min}\n")
    assert facts_of(run)[0] == ("Validation", "60.00%", "best accuracy at epoch 3")  # the first of equal losses


def test_module_without_accuracy_is_reported_by_its_loss(tmp_path: Path) -> None:
    run = write_config(tmp_path / "a" / TIME)
    write_metrics(run, [{"step": i, "epoch": i, "val/loss": loss} for i, loss in enumerate([0.5, 0.25, 0.375])])
    assert "validation 0.25 (best loss at epoch 2), test not tested" in sentence_of(run)
