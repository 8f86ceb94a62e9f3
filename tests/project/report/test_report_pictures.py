"""The images of a report: which are folded, which are left out because they repeat another, and their captions."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import write_run, write_test
from torch.utils.tensorboard import SummaryWriter

from project.report.pictures import pictures
from project.report.read import read_run
from project.report.write import write_report
from project.runs.config import RESULTS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "full/2026-11-21_10-00-00")


def test_kernels_are_shown_once_and_sheets_are_folded(run: Path) -> None:
    page = pictures(read_run(run), ["kernels_colour", "kernels", "kernels_split"])
    opened, folded = page.split("<details>")
    assert opened.count("<img") == folded.count("<img") == 1
    assert "Kernels of conv1: a cell" in opened
    assert "Show kernels (1)" in folded
    assert "Kernels of conv2: a row" in folded


def test_image_of_what_charts_and_tables_show_is_left_out(run: Path) -> None:
    page = write_report(run).read_text()
    assert 'alt="Gradient flow' not in page
    assert 'alt="Most confident mistakes' not in page
    assert 'alt="Confusion matrix' not in page


def test_sections_are_in_the_order_of_questions(run: Path) -> None:
    page = write_report(run).read_text()
    names = ("outcome", "curves", "confusion", "mistakes", "attention", "classes", "kernels", "maps", "origin")
    places = [page.index(f'<section id="{name}">') for name in names]
    assert places == sorted(places)


def test_image_of_a_test_names_the_epoch_of_its_checkpoint(run: Path) -> None:
    test = write_test(run)
    with SummaryWriter(test) as writer:
        writer.add_image("roc/test", np.zeros((3, 9, 9), np.uint8), 0)
    assert "ROC curve of each class against the rest, test images, latest test" in pictures(read_run(run), ["roc"])
    (test / RESULTS).write_text(json.dumps({"epoch": 2, "metrics": {}}))
    assert "test images, weights of epoch 2" in pictures(read_run(run), ["roc"])
