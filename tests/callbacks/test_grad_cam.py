from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from watching import NO_TRAINER, decode, events, fit

from callbacks import GradCAM
from callbacks.grad_cam import overlay
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Corner(nn.Module):
    """Predict class 3 for bright pixels in the upper left with a frozen layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.rest = nn.Linear(2, num_classes)
        self.conv.weight.requires_grad_(False).fill_(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return self.rest(0 * maps.mean((2, 3))) + maps[:, 0, :16, :16].mean((1, 2))[:, None] * torch.eye(10)[3]


def collect(
    module: ImageClassifier, images: torch.Tensor, targets: torch.Tensor, layer: str
) -> dict[str, torch.Tensor]:
    _, tensors, _ = GradCAM(layer).collect(NO_TRAINER, module, images, targets)
    return tensors


def test_map_is_that_of_the_paper(make_classifier: Make) -> None:
    torch.manual_seed(0)
    module = make_classifier().eval()
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([1, 5, 9])
    with torch.inference_mode():
        tensors = SimpleNamespace(**collect(module, images, targets, "conv2"))
    network = module.network
    activations = network.conv2(network.pool1(network.conv1(images).relu())).detach().requires_grad_()
    x = network.pool2(activations.relu()).flatten(1)
    logits = network.fc3(network.fc2(network.fc1(x).relu()).relu())
    for column, chosen in enumerate((targets, logits.argmax(1))):
        assert torch.equal(tensors.classes[:, column], chosen.float())
        torch.testing.assert_close(tensors.shares[:, column], logits.softmax(1).gather(1, chosen[:, None])[:, 0])
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), activations, retain_graph=True)
        expected = (gradient.mean((2, 3))[:, :, None, None] * activations).sum(1).relu()
        torch.testing.assert_close(tensors.maps[:, column], expected)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_frozen_layer_has_a_map(make_classifier: Make) -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 4:8, 4:8] = 1
    maps = collect(make_classifier(network=Corner).eval(), images, torch.tensor([3]), "conv")["maps"]
    assert maps[0, 0, 4:8, 4:8].min() > 0
    assert maps[0, 0].sum() == pytest.approx(maps[0, 0, 4:8, 4:8].sum().item())


def test_images_maps_and_captions_are_arranged(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, [GradCAM(images=2)], epochs=1)
    picture = decode(events(tmp_path).Images("grad_cam/conv2")[0])
    data = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = make_classifier().denormalize(data)[0] * 255
    torch.testing.assert_close(picture[:, 6:102, 6:102][:, ::3, ::3], expected, atol=0.51, rtol=0)


def test_layer_without_a_map_is_named(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"returns maps .* 'fc1' returns \(6, 120\)"):
        fit(make_classifier(), tmp_path, [GradCAM("fc1")])


def test_overlay_is_red_where_the_map_is_largest() -> None:
    weights = torch.zeros(8, 8)
    weights[6, 6] = 2
    picture = overlay(torch.full((3, 32, 32), 0.5), weights)
    assert picture[0, 26, 26] > picture[2, 26, 26]
    assert picture[2, 5, 5] > picture[0, 5, 5] - 0.1
    untouched = torch.rand(3, 32, 32)
    assert torch.equal(overlay(untouched, torch.zeros(8, 8)), untouched)
    assert torch.equal(overlay(untouched, torch.full((8, 8), torch.nan)), untouched)
