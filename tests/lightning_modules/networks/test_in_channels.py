from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.networks import MLP, LeNet, NiN, Recurrent, ResNet, SoftmaxRegression, WideResNet, ZooNetwork
from lightning_modules.networks.build import build_network
from lightning_modules.networks.library import set_in_channels

NETWORKS: list[Any] = [MLP, LeNet, NiN, Recurrent, ResNet, SoftmaxRegression]


@pytest.mark.parametrize("network", [*NETWORKS, partial(WideResNet, depth=10, widen_factor=1)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_networks_take_the_channels_of_the_data(network: Any, channels: int) -> None:
    output = build_network(network, 7, 32, channels).eval()(torch.zeros(1, channels, 32, 32))
    assert output.shape == (1, 7)


def test_a_library_network_gives_a_grey_image_the_output_of_its_rgb_version() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3)
    images = torch.rand(2, 1, 8, 8)
    expected = conv(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(set_in_channels(nn.Sequential(conv), 1)(images), expected)
    for channels in (2, 4, 7):
        assert ZooNetwork(3, "torchvision.models.resnet18", 32, in_channels=channels).conv1.in_channels == channels
    with pytest.raises(MisconfigurationException, match="convolution of 3 channels, which can be adapted to 4"):
        set_in_channels(nn.Sequential(nn.Linear(3, 3)), 4)


class RGBOnly(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


def test_a_network_without_the_argument_is_for_rgb_images() -> None:
    assert build_network(RGBOnly, 7, 32, 3)(torch.zeros(1, 3, 8, 8)).shape == (1, 7)
    with pytest.raises(MisconfigurationException, match="of 1 channels, but RGBOnly has no argument in_channels"):
        build_network(RGBOnly, 7, 32, 1)
