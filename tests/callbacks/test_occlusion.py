from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from watching import decode, events, fit

from callbacks import OcclusionSensitivity
from callbacks.tools.pictures import sheet
from lightning_modules import ImageClassifier


class Patch(nn.Module):
    """A network whose prediction depends only on the mean of a patch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_classes,), 5.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images[..., 8:16, 20:28].abs().mean((1, 2, 3))[:, None] * torch.eye(10)[0]


def test_box_covers_the_square_that_the_prediction_depends_on(
    make_classifier: Callable[..., ImageClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[list[str]] = []
    monkeypatch.setattr(
        "callbacks.occlusion.sheet", lambda images, *args, **kw: captions.extend(args[0]) or sheet(images, *args, **kw)
    )
    fit(make_classifier(network=Patch), tmp_path, [OcclusionSensitivity(images=[0, 10])], epochs=1)
    picture = decode(events(tmp_path).Images("occlusion")[0])
    red = ((picture[0] == 255) & (picture[1] == 0) & (picture[2] == 0)).nonzero()
    factor, margin, width = 6, 6, 32 * 6 + 6  # enlargement, margin, distance of two images
    assert red[:, 0].aminmax() == (margin + 8 * factor, margin + 16 * factor - 1)
    assert red[:, 1].aminmax() == (margin + 20 * factor, margin + width + 28 * factor - 1)
    for name, shares in captions:
        before, after = (int(share.strip("%")) for share in shares.split(" to "))
        assert name == "airplane"
        assert before > after == 10  # nothing distinguishes the classes any more
