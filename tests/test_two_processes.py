"""Training in two processes: results are drawn once and contain the images of both."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from watching import events


@pytest.mark.slow
def test_images_of_two_processes_are_drawn_once_with_all_data(fast: list[str], tmp_path: Path) -> None:
    options = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    command = [sys.executable, "-m", "project", "fit", *fast, *options, f"--runs_dir={tmp_path / 'runs'}"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "could not draw" not in result.stderr
    (run,) = (tmp_path / "runs/lenet").iterdir()
    assert len(list(run.glob("events.out.*"))) == 1
    reader = events(run)
    for tag in reader.Tags()["images"]:
        assert len(reader.Images(tag)) == 1, tag
    for tag in reader.Tags()["histograms"]:
        assert len(reader.Histograms(tag)) == 1, tag
    assert {"confusion_matrix/val", "mistakes/val", "grad_cam/conv2", "feature_maps/conv1"} <= set(
        reader.Tags()["images"]
    )
    with (run / "class_report_val.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    images = (Path(_root(fast)) / "val.txt").read_text().splitlines()
    assert sum(int(row["images"]) for row in classes) == len(images)
    right = sum(float(row["recall"]) * int(row["images"]) for row in classes) / len(images)
    assert abs(right - reader.Scalars("val/acc")[0].value) < 1e-4
    with (run / "mistakes_val.csv").open(newline="") as file:
        mistakes = list(csv.DictReader(file))
    confidences = [float(row["confidence"]) for row in mistakes]
    assert confidences == sorted(confidences, reverse=True)
    assert len({row["path"] for row in mistakes}) == len(mistakes) == 24
    assert all(Path(row["path"]).parent.name == row["true"] for row in mistakes)


def _root(options: list[str]) -> str:
    return next(option.removeprefix("--data.root=") for option in options if option.startswith("--data.root="))
