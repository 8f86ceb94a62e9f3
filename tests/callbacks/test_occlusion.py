from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from watching import decode, events, fit

from callbacks import OcclusionSensitivity
from callbacks.base.log import LogSnapshot
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Patch(nn.Module):
    """A network whose prediction depends only on the mean of a patch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_classes,), 5.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images[..., 8:16, 20:28].abs().mean((1, 2, 3))[:, None] * torch.eye(10)[0]


def test_box_covers_the_square_that_the_prediction_depends_on(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = []
    monkeypatch.setattr(
        LogSnapshot, "boxes", lambda self, tag, image, box, labels, caption: boxes.append((box, labels))
    )
    fit(make_classifier(network=Patch), tmp_path, [OcclusionSensitivity(images=[0, 10])], epochs=1)
    (corners, labels), factor = boxes[0], 6  # enlargement
    first = torch.tensor([20, 8, 28, 16]) * factor + 2  # and the gap
    assert corners[0].tolist() == first.tolist()
    assert corners[1].tolist() == (first + torch.tensor([32 * factor + 2, 0, 32 * factor + 2, 0])).tolist()
    assert labels[0].startswith("airplane ")
    before, after = (int(word.strip("%")) for word in labels[0].split()[1::2])
    assert before > after == 10  # nothing distinguishes the classes any more


def test_image_has_boxes_and_captions(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, [OcclusionSensitivity(images=2)], epochs=1)
    picture = decode(events(tmp_path).Images("occlusion")[0])
    assert picture.shape[2] == 2 * 192 + 3 * 2  # two cells, and gaps
    assert picture.shape[1] > 192
    red = (picture[0] == 255) & (picture[1] == 0) & (picture[2] == 0)
    assert red.sum() > 200


def test_share_beyond_the_image_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match=r"share of OcclusionSensitivity from 0 to 1, but got 1\.5"):
        OcclusionSensitivity(share=1.5)
