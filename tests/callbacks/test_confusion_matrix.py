from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import ImageDraw
from torch.utils.data import DataLoader, TensorDataset

from callbacks import ConfusionMatrix
from callbacks.confusion_matrix import CELL, draw_confusion_matrix


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[float, float], str]:
    """Texts that are drawn, by their places."""
    drawn: dict[tuple[float, float], str] = {}
    draw = ImageDraw.ImageDraw.text

    def text(self, place, words, *args, **kwargs) -> None:
        drawn[tuple(map(float, place))] = words
        draw(self, place, words, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return drawn


def cells(texts: dict[tuple[float, float], str], size: int) -> list[list[str]]:
    """Return the texts in rows from top to bottom, each from left to right, without the names."""
    rows: dict[float, dict[float, str]] = {}
    for (x, y), text in list(texts.items())[size:]:
        rows.setdefault(y, {})[x] = text
    return [[row[x] for x in sorted(row)] for _, row in sorted(rows.items())]


def test_rows_are_true_and_columns_predicted_with_recall_and_precision(texts) -> None:
    picture = draw_confusion_matrix(np.array([[8, 2], [1, 4]]), ["cat", "dog"])
    assert cells(texts, 2) == [["88.9%", "66.7%"], ["8", "2", "80.0%"], ["1", "4", "80.0%"]]
    assert list(texts.values())[:2] == ["cat", "dog"]
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3


def test_a_class_without_images_has_neither_recall_nor_precision(texts) -> None:
    counts = np.array([[0, 0, 0], [1, 4, 0], [0, 0, 0]])
    draw_confusion_matrix(counts, ["cat", "dog", "fox"])
    dash, zeros = "\N{EN DASH}", ["0", "0", "0"]
    assert cells(texts, 3) == [[dash, "100.0%", dash], [*zeros, dash], ["1", "4", "0", "80.0%"], [*zeros, dash]]
    texts.clear()
    draw_confusion_matrix(counts, ["cat", "dog", "fox"], percent=True)
    assert cells(texts, 3)[2] == ["20%", "80%", "0%", "80.0%"]


def test_a_cell_is_as_dark_as_its_share_of_the_row() -> None:
    picture = draw_confusion_matrix(np.array([[9, 1], [0, 5]]), ["a", "b"]).float().mean(0)
    right = picture.shape[1] - CELL
    dark, light = (picture[40, right - offset].item() for offset in (200, 20))
    assert dark < 130 < 220 < light
    assert picture[-1, 0] == 255


def test_a_hundred_classes_have_no_numbers_in_their_cells(texts) -> None:
    picture = draw_confusion_matrix(np.eye(100, dtype=int), [f"class {i}" for i in range(100)])
    assert len(texts) == 3 * 20  # names, recall and precision of 20 classes
    assert max(picture.shape) < 1200


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
