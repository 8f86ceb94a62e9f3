from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from watching import decode, events, fit

from callbacks import GradCAM, OcclusionSensitivity
from callbacks.base.images import Selection
from callbacks.grad_cam import overlay
from lightning_modules import ImageClassifier
from lightning_modules.networks import MLP, LeNet

Make = Callable[..., ImageClassifier]


class Corner(nn.Module):
    """Predict class 3 for bright pixels in the upper left, and class 7 for those in the lower right."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.rest = nn.Linear(2, num_classes)
        self.conv.weight.requires_grad_(False).fill_(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        logits = torch.zeros(len(images), self.rest.out_features)
        logits[:, 3] = maps[:, 0, :16, :16].mean((1, 2))
        logits[:, 7] = maps[:, 1, 16:, 16:].mean((1, 2))
        return logits + 0 * self.rest(maps.mean((2, 3)))


class FakeTrainer:
    """The attributes of a trainer that Grad-CAM uses."""

    class precision_plugin:  # noqa: N801  # as Lightning calls it
        val_step_context = staticmethod(nullcontext)


def test_map_is_that_of_the_paper(make_classifier: Make) -> None:
    torch.manual_seed(0)
    module = make_classifier().eval()
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([1, 5, 9])
    callback = GradCAM()
    with torch.inference_mode():
        selection = Selection(images, targets, 3)
        classes, shares, maps = callback._weigh(FakeTrainer(), module, selection, "conv2", module.network.conv2)
    network = module.network
    activations = network.conv2(network.pool1(network.conv1(images).relu())).detach().requires_grad_()
    x = network.pool2(activations.relu()).flatten(1)
    logits = network.fc3(network.fc2(network.fc1(x).relu()).relu())
    for column, chosen in enumerate((targets, logits.argmax(1))):
        assert torch.equal(classes[:, column], chosen)
        torch.testing.assert_close(shares[:, column], logits.softmax(1).gather(1, chosen[:, None])[:, 0])
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), activations, retain_graph=True)
        expected = (gradient.mean((2, 3))[:, :, None, None] * activations).sum(1).relu()
        torch.testing.assert_close(maps[:, column], expected)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_frozen_layer_has_a_map(make_classifier: Make) -> None:
    module = make_classifier(network=Corner).eval()
    images = torch.zeros(1, 3, 32, 32)
    images[..., 4:8, 4:8] = 1
    _, _, maps = GradCAM()._weigh(
        FakeTrainer(), module, Selection(images, torch.tensor([3]), 1), "conv", module.network.conv
    )
    assert maps[0, 0, 4:8, 4:8].min() > 0
    assert maps[0, 0].sum() == pytest.approx(maps[0, 0, 4:8, 4:8].sum().item())


def test_images_maps_and_captions_are_arranged(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, [GradCAM(images=2)], epochs=1)
    reader = events(tmp_path)
    assert reader.Tags()["images"] == ["grad_cam/conv2"]
    picture = decode(reader.Images("grad_cam/conv2")[0])
    images = picture[:, 6:102, 6:102][:, ::3, ::3]
    data = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, make_classifier().denormalize(data)[0] * 255, atol=0.51, rtol=0)


def test_network_without_convolutions_is_skipped(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="GradCAM needs a convolution, but the network has none"):
        fit(make_classifier(network=MLP), tmp_path, [GradCAM()], epochs=1)
    assert events(tmp_path).Tags()["images"] == []


def test_unknown_layer_fails_before_training(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"'conv3' of GradCAM .* conv2"):
        fit(make_classifier(), tmp_path, [GradCAM("conv3")])


@pytest.mark.parametrize(("layer", "message"), [("fc1", r"'fc1' of GradCAM to return maps"), ("side", "do not")])
def test_layer_without_a_map_is_named(make_classifier: Make, tmp_path: Path, layer: str, message: str) -> None:
    class Sidetracked(LeNet):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            self.side = nn.Conv2d(3, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.side(images)
            return super().forward(images)

    with pytest.raises(MisconfigurationException, match=message):
        fit(make_classifier(network=Sidetracked), tmp_path, [GradCAM(layer)])


def test_an_output_that_is_not_of_logits_is_refused(make_classifier: Make) -> None:
    module = make_classifier()
    module.network = LeNet(64)  # returns embeddings instead of logits
    selection = Selection(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]), 2)
    with pytest.raises(MisconfigurationException, match=r"logits .* for GradCAM, but got \(2, 64\)"):
        GradCAM()._weigh(FakeTrainer(), module, selection, "conv2", module.network.conv2)
    with pytest.raises(MisconfigurationException, match=r"logits .* for OcclusionSensitivity, but got \(2, 64\)"):
        OcclusionSensitivity().collect(FakeTrainer(), module, selection)


def test_overlay_is_red_where_the_map_is_largest() -> None:
    weights = torch.zeros(8, 8)
    weights[6, 6] = 2
    picture = overlay(torch.full((3, 32, 32), 0.5), weights)
    red, _, blue = picture[:, 26, 26]
    assert red > blue
    assert picture[2, 5, 5] > picture[0, 5, 5] - 0.1
    untouched = torch.rand(3, 32, 32)
    assert torch.equal(overlay(untouched, torch.zeros(8, 8)), untouched)
    assert torch.equal(overlay(untouched, torch.full((8, 8), torch.nan)), untouched)
