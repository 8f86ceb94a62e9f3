import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error
from watching import snapshot

from callbacks.base.predictions import Predictions
from callbacks.class_report import ClassReport, Row, markdown, report


def some(classes: int, images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets, preds = (torch.randint(classes, (images,), generator=generator) for _ in range(2))
    return targets, preds.where(torch.rand(images, generator=generator) < 0.4, targets), torch.rand(images)


@pytest.mark.parametrize(("classes", "images"), [(2, 50), (1000, 5000)])
def test_shares_are_those_of_scikit_learn(classes: int, images: int) -> None:
    targets, preds, losses = some(classes, images)
    rows = report([str(i) for i in range(classes)], targets, preds, losses)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, preds, labels=range(classes), zero_division=np.nan
    )
    precision[support == 0] = f1[support == 0] = np.nan  # scikit-learn returns 0 for predicted classes without images
    np.testing.assert_allclose([row.recall for row in rows], recall)
    np.testing.assert_allclose([row.precision for row in rows], precision)
    np.testing.assert_allclose([row.f1 for row in rows], f1)
    assert [row.images for row in rows] == support.tolist()
    assert rows[1].loss == pytest.approx(losses[targets == 1].mean().item())


def test_a_ratio_with_divisor_zero_is_nan_and_not_zero() -> None:
    no_image, never_chosen = report(["a", "b"], torch.tensor([1, 1]), torch.tensor([0, 0]), torch.ones(2))
    assert no_image.images == 0
    assert all(math.isnan(share) for share in no_image[2:])  # although it was predicted
    assert never_chosen.recall == 0
    assert math.isnan(never_chosen.precision)
    assert never_chosen.f1 == 0


def test_table_begins_with_the_worst_class_and_escapes_names() -> None:
    rows = [Row("good", 5, 1.0, 1.0, 1.0, 0.1), Row("b|a<d", 5, 0.2, 0.4, 0.3, 2.0), Row("none", 0, *[math.nan] * 4)]
    lines = markdown(rows).splitlines()
    assert lines[2] == r"| b\|a&lt;d | 5 | 20.0% | 40.0% | 30.0% | 2.000 |"
    assert lines[4] == "| none | 0 |  |  |  |  |"
    assert lines[5] == "| mean over classes | 10 | 60.0% | 70.0% | 65.0% | 1.050 |"


def test_table_of_a_thousand_classes_is_truncated_with_a_note() -> None:
    text = markdown(report([f"c{i}" for i in range(1000)], *some(1000, 5000)))
    assert text.count("\n") < 60
    assert "950 more classes are in the file" in text


def test_file_has_every_class_in_order(tmp_path: Path) -> None:
    log = snapshot(tmp_path / "run")
    tensors = torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2]), torch.ones(3), torch.ones(3), torch.ones(3, 3)
    ClassReport().draw(log, "val", Predictions(["x", "y", "z"], *tensors))
    with (tmp_path / "run/class_report_val.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "images", "recall", "precision", "f1", "loss"],
        ["x", "2", "0.500000", "1.000000", "0.666667", "1.000000"],
        ["y", "0", "", "", "", ""],
        ["z", "1", "1.000000", "0.500000", "0.666667", "1.000000"],
    ]
    expected = multiclass_calibration_error(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0, 0]), 2, n_bins=15)
    tensors = torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0.9, 0.6]), torch.ones(2), torch.ones(2, 2)
    ClassReport().draw(log, "val", Predictions(["x", "y"], *tensors))
    with (tmp_path / "run/calibration_val.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    shares = {"confidence": "0.750000", "accuracy": "0.500000", "calibration_error": f"{expected:.6f}"}
    assert row == {"images": "2", **shares}
