import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from watching import decode, events, fit, snapshot

from callbacks import Histograms, LearningCurves, NetworkGraph, TrainingBatch
from callbacks.tools import warn_once
from callbacks.tools.histogram import QUANTILES, gather
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]
PICTURE = torch.arange(3 * 8 * 300).view(3, 8, 300).byte()


class Album(CSVLogger):
    """A logger with ``log_image``, like that of Weights & Biases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures: dict[str, Image.Image] = {}

    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        self.pictures[key] = images[0]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_picture_is_encoded_once_for_the_file_and_tensorboard(tmp_path: Path) -> None:
    board, album = TensorBoardLogger(tmp_path, name="", version=""), Album(tmp_path)
    log = snapshot(tmp_path, 3, board, album)
    log.image("maps/conv1", PICTURE, "Maps of é, epoch 3")
    figure = Figure()
    figure.subplots().set_title("One class vs. rest")
    log.figure("roc", figure)
    board.experiment.flush()
    file = tmp_path / "pictures/maps/conv1/epoch_0003.png"
    (event,) = events(tmp_path).Images("maps/conv1")
    assert (event.encoded_image_string, event.step) == (file.read_bytes(), 9)
    assert (event.width, event.height) == Image.open(file).size == album.pictures["maps/conv1"].size
    assert torch.equal(decode(event)[:, :8], PICTURE.float())
    assert Image.open(file).info["Description"] == "Maps of é, epoch 3"
    assert Image.open(tmp_path / "pictures/roc/epoch_0003.png").info["Description"] == "roc: One class vs. rest"


def test_newest_pictures_are_kept_and_those_after_a_resumed_epoch_are_removed(tmp_path: Path) -> None:
    for epoch in range(1, 13):
        snapshot(tmp_path, epoch).image("a", PICTURE)
    assert names(tmp_path / "pictures/a") == [f"epoch_{epoch:04}.png" for epoch in range(8, 13)]
    snapshot(tmp_path, 10).image("a", PICTURE)  # resumed from the end of epoch 9
    assert names(tmp_path / "pictures/a") == ["epoch_0008.png", "epoch_0009.png", "epoch_0010.png"]


def test_video_is_one_file(tmp_path: Path) -> None:
    snapshot(tmp_path).video("kernels_video/conv1", [PICTURE, 255 - PICTURE], ["", ""])
    assert Image.open(tmp_path / "pictures/kernels_video/conv1.gif").n_frames == 2


def test_quantiles_of_histograms_are_appended(tmp_path: Path) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 2 + 3
    for epoch in (1, 2):
        snapshot(tmp_path, epoch).histograms(gather({"weights/a": values}))
    with (tmp_path / "distributions.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first | {"epoch": "2"} == second
    assert (first["tag"], first["epoch"], first["step"], first["count"]) == ("weights/a", "1", "9", "20000")
    assert float(first["rms"]) == pytest.approx(values.square().mean().sqrt().item(), rel=1e-3)
    expected = np.quantile(values.numpy(), list(QUANTILES.values()))
    assert [float(first[name]) for name in QUANTILES] == pytest.approx(expected, rel=0.1, abs=0.05)  # 10 % per bucket


def test_quantiles_of_few_values_lie_in_their_buckets() -> None:
    assert gather({"a": torch.full((7,), 5.0)})["a"].quantiles == [5] * 5
    low, *middle, high = gather({"a": torch.tensor([0.0, 1, 1, 1, 9])})["a"].quantiles
    assert (low, high) == (0, 9)
    assert middle[1:2] == [pytest.approx(1, rel=0.1)]


def test_only_media_without_a_file_need_tensorboard(
    make_classifier: Make, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    warn_once.cache_clear()
    watching = [Histograms(), TrainingBatch(every_n_epochs=1), NetworkGraph(), LearningCurves()]
    fit(make_classifier(), tmp_path, watching, epochs=1, logger=CSVLogger(tmp_path))
    messages = [str(warning.message) for warning in recwarn if "TensorBoard" in str(warning.message)]
    assert messages == ["Without a TensorBoardLogger, graphs, curves, embeddings, HPARAMS and texts are not logged."]
    assert names(tmp_path / "pictures/training_batch") == ["epoch_0001.png"]
    assert "weights/conv1.weight,1," in (tmp_path / "distributions.csv").read_text()


def test_a_table_is_complete_or_missing(tmp_path: Path) -> None:
    log = snapshot(tmp_path / "run")
    log.table("table.csv", ["name", "count", "share"], [["a", 1, 0.5], ["b, c", 2, math.nan]])

    def broken() -> Iterator[Any]:
        yield ["new"]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        log.table("table.csv", ["name"], broken())
    assert (tmp_path / "run/table.csv").read_text() == 'name,count,share\na,1,0.500000\n"b, c",2,\n'
