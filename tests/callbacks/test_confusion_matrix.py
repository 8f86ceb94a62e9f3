from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
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


def test_a_class_without_images_has_neither_recall_nor_precision() -> None:
    counts = np.array([[0, 0, 0], [1, 4, 0], [0, 0, 0]])
    figure = draw_confusion_matrix(counts, ["cat", "dog", "fox"])
    labels = texts(figure)
    assert {text for text in labels if "%" in text and "right" not in text} == {"80.0%", "100.0%"}
    assert "\N{EN DASH}" in labels
    in_percent(figure, counts)
    assert [text.get_text() for text in figure.axes[0].texts[3:6]] == ["20%", "80%", "0%"]


def test_a_hundred_classes_have_no_numbers_in_their_cells() -> None:
    figure = draw_confusion_matrix(np.eye(100, dtype=int), [f"class {i}" for i in range(100)])
    assert len(figure.axes[0].texts) == 0
    assert len(figure.axes[0].get_xticks()) == 20


def test_all_batches_are_counted_and_the_picture_is_in_the_folder(tmp_path: Path) -> None:
    class Fixed(LightningModule):
        """A module that returns its input as predictions."""

        class_names = ("cat", "dog")

        def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
            return {"preds": batch[0], "logits": torch.zeros(len(batch[0]), 2)}

    data = DataLoader(TensorDataset(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0])), 2)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    Trainer(callbacks=[ConfusionMatrix()], **options).test(Fixed(), data, verbose=False)
    assert (tmp_path / "confusion_matrix_test.csv").read_text().split()[-2:] == ["cat,1,1", "dog,1,2"]
    assert (tmp_path / "pictures/confusion_matrix/test/epoch_0001.png").is_file()
