from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard.summary import compute_curve
from watching import events, fit

from callbacks import PRROCCurves
from callbacks.pr_roc_curves import THRESHOLDS, counts_above, draw_roc
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


def some(images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, classes, generator=generator).softmax(1), torch.arange(images) % classes


def test_counts_are_those_of_tensorboard() -> None:
    probabilities, targets = some(1000, 4)
    probabilities[0], probabilities[1] = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
    true, false = counts_above(probabilities, targets)
    for number in range(4):
        expected = compute_curve((targets == number).numpy(), probabilities[:, number].numpy(), THRESHOLDS)
        np.testing.assert_array_equal(true[number], expected[0])
        np.testing.assert_array_equal(false[number], expected[1])


def test_areas_below_the_roc_curves_are_those_of_scikit_learn() -> None:
    probabilities, targets = some(300, 3)
    figure = draw_roc(probabilities, targets, ["a", "b", "c"], "epoch 1")
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {
        f"{name} {roc_auc_score(targets == number, probabilities[:, number]):.3f}" for number, name in enumerate("abc")
    }


def test_classes_without_images_have_no_roc_curve() -> None:
    probabilities, _ = some(10, 3)
    figure = draw_roc(probabilities, torch.zeros(10, dtype=torch.long), ["a", "b", "c"], "epoch 1")
    assert figure.axes[0].get_legend() is None


def test_curves_of_each_class_and_of_confidence_are_logged(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()
    trainer = fit(module, tmp_path, [PRROCCurves(max_classes=3)], epochs=1)
    reader = events(tmp_path)
    names = module.class_names[:3]
    assert set(reader.Tags()["tensors"]) == {f"pr/{name}" for name in (*names, "right_or_wrong")}
    images, targets = trainer.val_dataloaders.dataset.tensors
    with torch.no_grad():
        shares = module.eval()(images).softmax(1)
    for number, name in enumerate(names):
        logged = make_ndarray(reader.Tensors(f"pr/{name}")[0].tensor_proto)
        expected = compute_curve((targets == number).numpy(), shares[:, number].numpy(), THRESHOLDS)
        np.testing.assert_allclose(logged[:4], expected[:4])
        assert logged[5, 0] == pytest.approx(1)  # recall at threshold 0
    sure = make_ndarray(reader.Tensors("pr/right_or_wrong")[0].tensor_proto)
    assert sure[0, 0] == (shares.argmax(1) == targets).sum()
