from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from watching import decode, events, fit

from callbacks import ConvolutionKernels, Histograms, OcclusionSensitivity, TopMistakes
from callbacks.base.log import write_csv
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Album(CSVLogger):
    """A logger with ``log_image``, like that of Weights & Biases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures: dict[str, Image.Image] = {}

    def log_image(self, key: str, images: list[Image.Image], step: int | None = None) -> None:
        self.pictures[key] = images[0]


def test_pictures_of_other_loggers_have_their_boxes_and_words(make_classifier: Make, tmp_path: Path) -> None:
    album = Album(tmp_path)
    loggers = [TensorBoardLogger(tmp_path, name="", version=""), album]
    fit(make_classifier(), tmp_path, [OcclusionSensitivity(images=2)], epochs=1, logger=loggers)
    drawn = decode(events(tmp_path).Images("occlusion")[0])
    assert torch.equal(pil_to_tensor(album.pictures["occlusion"]).float(), drawn)


def test_media_that_an_image_logger_does_not_support_are_reported_once(
    make_classifier: Make, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    loggers = [TensorBoardLogger(tmp_path, name="", version=""), Album(tmp_path), CSVLogger(tmp_path)]
    fit(make_classifier(), tmp_path, [Histograms(), TopMistakes(), ConvolutionKernels()], epochs=1, logger=loggers)
    messages = [str(warning.message) for warning in recwarn if "does not support" in str(warning.message)]
    assert messages == [
        f"Album does not support {kind}. Only TensorBoard gets them." for kind in ("histograms", "videos")
    ]


def test_a_table_is_complete_or_missing(tmp_path: Path) -> None:
    file = tmp_path / "run/table.csv"
    write_csv(file, [["a", 1], ["b, c", 2]])

    def broken() -> Iterator[Any]:
        yield ["new"]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_csv(file, broken())
    assert file.read_text() == 'a,1\n"b, c",2\n'
