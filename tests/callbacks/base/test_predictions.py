import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from watching import all_callbacks, fit

from callbacks import ConfusionMatrix
from callbacks.base.predictions import MOST_COLUMNS, Collector
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


def matrix(folder: Path) -> torch.Tensor:
    with (folder / "confusion_matrix_val.csv").open(newline="") as file:
        return torch.tensor([[int(count) for count in row[1:]] for row in list(csv.reader(file))[1:]])


def test_a_single_image_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, all_callbacks(), epochs=1, data=(torch.randn(1, 3, 32, 32), torch.tensor([2])))
    assert matrix(tmp_path)[2].sum() == matrix(tmp_path).sum() == 1


def test_module_without_predictions_is_refused_before_training(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_classifier()
    before = module.network.fc3.weight.clone()
    monkeypatch.setattr(module, "validation_step", lambda batch, batch_idx: None)
    with pytest.raises(MisconfigurationException, match=r"a dict with `preds` and `logits` .* for ConfusionMatrix"):
        fit(module, tmp_path, [ConfusionMatrix(every_n_epochs=5)], epochs=9)
    assert torch.equal(module.network.fc3.weight, before)


def test_probabilities_of_classes_that_are_not_stored_take_no_memory() -> None:
    collector, classes = Collector(), torch.zeros(4, dtype=torch.long)
    batch = collector.take(nn.Module(), {"preds": classes, "logits": torch.randn(4, 1000)}, classes, 0)
    assert batch["probabilities"].untyped_storage().nbytes() == 4 * MOST_COLUMNS * 4
