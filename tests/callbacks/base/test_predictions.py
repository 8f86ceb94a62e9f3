import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from watching import all_callbacks, fit

from callbacks import ConfusionMatrix, TopMistakes
from callbacks.base.predictions import MOST_COLUMNS, Collector
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


def matrix(folder: Path) -> torch.Tensor:
    with (folder / "confusion_matrix_val.csv").open(newline="") as file:
        return torch.tensor([[int(count) for count in row[1:]] for row in list(csv.reader(file))[1:]])


def test_a_single_image_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, all_callbacks(), epochs=1, data=(torch.randn(1, 3, 32, 32), torch.tensor([2])))
    assert matrix(tmp_path)[2].sum() == matrix(tmp_path).sum() == 1


def test_images_that_the_loss_ignores_are_excluded(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier(loss=nn.CrossEntropyLoss(ignore_index=3))
    trainer = fit(module, tmp_path, [ConfusionMatrix(), TopMistakes(count=24)], epochs=1)
    counts = matrix(tmp_path)
    assert counts.sum(1).tolist() == [3, 3, 3, 0, 2, 2, 2, 2, 2, 2]
    right = trainer.callback_metrics["val/acc"].item()
    assert counts.diagonal().sum() / counts.sum() == pytest.approx(right)
    with (tmp_path / "mistakes_val.csv").open(newline="") as file:
        true = [row["true"] for row in csv.DictReader(file)]
    assert len(true) == counts.sum() - counts.diagonal().sum()
    assert module.class_names[3] not in true


def test_nothing_is_drawn_where_the_loss_ignores_all(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier(loss=nn.CrossEntropyLoss(ignore_index=3))
    data = torch.randn(8, 3, 32, 32), torch.full((8,), 3)
    trainer = fit(module, tmp_path, [ConfusionMatrix(), TopMistakes()], epochs=1, data=data)
    assert trainer.global_step == 1
    assert not list(tmp_path.glob("*_val.csv"))


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
