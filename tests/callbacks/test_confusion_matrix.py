from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from callbacks import ConfusionMatrix
from callbacks.confusion_matrix import draw_confusion_matrix, in_percent


def texts(figure) -> list[str]:
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_rows_are_true_and_columns_predicted_with_recall_and_precision() -> None:
    figure = draw_confusion_matrix(np.array([[8, 2], [1, 4]]), ["cat", "dog"])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (0, 1): "1", (1, 1): "4"}
    labels = texts(figure)
    assert "80.00% of 15 right" in labels
    for share in ("80.0%", "80.0%", "88.9%", "66.7%"):  # recall of cat and dog, precision of cat and dog
        assert share in labels


def test_cells_can_be_in_percent() -> None:
    counts = np.array([[8, 2], [0, 0]])
    figure = draw_confusion_matrix(counts, ["cat", "dog"])
    in_percent(figure, counts)
    assert [text.get_text() for text in figure.axes[0].texts] == ["80%", "20%", "0%", "0%"]


def test_a_class_without_images_or_predictions_is_drawn() -> None:
    assert "0.0%" in texts(draw_confusion_matrix(np.array([[0, 0], [3, 0]]), ["cat", "dog"]))
    assert draw_confusion_matrix(np.zeros((2, 2), int), ["cat", "dog"])


def test_a_class_without_images_has_neither_recall_nor_precision() -> None:
    labels = texts(draw_confusion_matrix(np.array([[0, 0, 0], [1, 4, 0], [0, 0, 0]]), ["cat", "dog", "fox"]))
    assert {text for text in labels if "%" in text and "right" not in text} == {"80.0%", "100.0%"}
    assert "\N{EN DASH}" in labels


def test_a_hundred_classes_have_no_numbers_in_their_cells() -> None:
    figure = draw_confusion_matrix(np.eye(100, dtype=int), [f"class {i}" for i in range(100)])
    assert len(figure.axes[0].texts) == 0
    assert len(figure.axes[0].get_xticks()) == 20


class Fixed(LightningModule):
    """A module that returns its input as predictions."""

    class_names = ("cat", "dog")

    def test_step(self, batch, batch_idx):
        return {"preds": batch[0]}


class Mute(Fixed):
    def test_step(self, batch, batch_idx):
        return None


def run_test(module: LightningModule, folder: Path) -> ConfusionMatrix:
    callback = ConfusionMatrix()
    data = TensorDataset(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0]))
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[callback], default_root_dir=folder, enable_progress_bar=False
    )
    trainer.test(module, DataLoader(data, 2), verbose=False)
    return callback


def test_all_batches_are_counted_and_the_picture_is_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "callbacks.confusion_matrix.draw_confusion_matrix",
        lambda counts, *others: seen.append(counts.tolist()) or draw_confusion_matrix(counts, *others),
    )
    run_test(Fixed(), tmp_path)
    assert seen == [[[1, 1], [1, 2]]]
    table = (tmp_path / "confusion_matrix_test.csv").read_text().split()
    assert table[-2:] == ["cat,1,1", "dog,1,2"]
    assert (tmp_path / "confusion_matrix_test.png").stat().st_size > 1000


def test_module_without_predictions_raises_with_the_keys_to_return(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="dict with `preds`"):
        run_test(Mute(), tmp_path)
