from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard.summary import compute_curve
from watching import events, fit

from callbacks import PRROCCurves
from callbacks.pr_roc_curves import draw_roc
from lightning_modules import ImageClassifier


def test_areas_below_the_roc_curves_are_those_of_scikit_learn() -> None:
    probabilities, targets = torch.randn(300, 3).softmax(1), torch.arange(300) % 2
    figure = draw_roc(probabilities, targets, ["a", "b", "no image"], "epoch 1")
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    areas = [roc_auc_score(targets == number, probabilities[:, number]) for number in range(2)]
    assert labels == {f"{name} {area:.3f}" for name, area in zip("ab", areas, strict=True)}
    assert draw_roc(probabilities, 0 * targets, ["a", "b", "c"], "epoch 1").axes[0].get_legend() is None


def test_curves_of_each_class_and_of_confidence_are_logged(
    make_classifier: Callable[..., ImageClassifier], tmp_path: Path
) -> None:
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
        np.testing.assert_allclose(
            logged[:4], compute_curve((targets == number).numpy(), shares[:, number].numpy(), 127)[:4]
        )
    sure = make_ndarray(reader.Tensors("pr/right_or_wrong")[0].tensor_proto)
    assert sure[0, 0] == (shares.argmax(1) == targets).sum()
