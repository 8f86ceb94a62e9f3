from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_modules import ImageClassifier
from lightning_modules.networks import MLP, LeNet, NiN, Recurrent, ResNet, SoftmaxRegression, WideResNet

RESNETS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.73, 18: 11.17, 34: 21.28, 50: 23.52}
WIDE_RESNETS = {(40, 1): 0.6, (40, 2): 2.2, (40, 4): 8.9, (16, 4): 2.8, (16, 8): 11.0, (28, 10): 36.5}


def size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shapes(network: nn.Module, layers: Iterable[nn.Module], side: int = 32) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs of layers for an image, and that of the network's output."""
    seen: list[tuple[int, ...]] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[1:])))
    output = network.eval()(torch.zeros(1, 3, side, side))
    return [*seen, tuple(output.shape[1:])]


def test_lenet_has_the_names_and_shapes_of_published_weights() -> None:
    weights = {name: tuple(value.shape) for name, value in LeNet(10).state_dict().items() if "weight" in name}
    layers = {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    assert weights == {f"{name}.weight": shape for name, shape in layers.items()}


# He et al., table 6, where 110 has 1.7 million; it, 18, 34 and 50 worked out by hand for ten classes, a 3x3 stem;
# Zagoruyko and Komodakis, tables 4 and 5; the authors' NiN: three convolutions and six of 1x1, with biases
@pytest.mark.parametrize(
    ("network", "millions", "error"),
    [
        *((partial(ResNet, depth=depth), millions, 0.0051) for depth, millions in RESNETS.items()),
        *((partial(WideResNet, depth=d, widen_factor=k), millions, 0.06) for (d, k), millions in WIDE_RESNETS.items()),
        (NiN, 0.966_986, 1e-7),
        (partial(MLP, image_size=32), 1.707_274, 1e-7),  # 3072 x 512 + 512, 512 x 256 + 256, 256 x 10 + 10
        (partial(SoftmaxRegression, image_size=32), 0.030_730, 1e-7),
    ],
)
def test_network_is_as_large_as_published(network: Callable[[int], nn.Module], millions: float, error: float) -> None:
    with torch.device("meta"):
        assert size(network(10)) / 1e6 == pytest.approx(millions, abs=error)


@pytest.mark.parametrize("depth", RESNETS)
def test_resnet_has_as_many_layers_as_in_its_name(depth: int) -> None:
    with torch.device("meta"):
        layers = [
            name for name, module in ResNet(10, depth).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
        ]
    assert len([name for name in layers if "shortcut" not in name]) == depth


def test_networks_shrink_images_between_their_stages_only() -> None:
    for depth in (18, 20, 50):
        network = ResNet(7, depth)
        assert [shape[-1] for shape in shapes(network, network.stages)][:-1] == [32, 16, 8, 4][: len(network.stages)]
    x = torch.randn(1, 16, 8, 8)
    out = ResNet(10, 20).stages[1][0].shortcut(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()  # new channels are zeros
    wide = WideResNet(7, depth=16, widen_factor=1)
    stages = [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2
    assert shapes(wide, wide.blocks) == [*stages, (7,)]
    nin = NiN(7)
    assert shapes(nin, (nin.block1, nin.block2, nin.block3)) == [(96, 32, 32), (192, 16, 16), (7, 8, 8), (7,)]


@pytest.mark.parametrize("network", [SoftmaxRegression, MLP, Recurrent])
def test_image_size_comes_from_the_data(
    network: type[nn.Module], make_classifier: Callable[..., ImageClassifier]
) -> None:
    assert make_classifier(network=network, image_size=16)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert network(10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_wide_resnet_activates_before_its_convolutions_and_not_after_them() -> None:
    with pytest.raises(MisconfigurationException, match=r"6n \+ 4.*but got 20"):
        WideResNet(10, depth=20)
    first, second = WideResNet(10, depth=16, widen_factor=2).eval().blocks[:2]
    x = torch.randn(2, 32, 8, 8)
    nn.init.zeros_(second.conv2.weight)
    assert torch.equal(second(x), x)  # the identity path is unchanged
    nn.init.zeros_(first.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(first(x), first.shortcut(first.bn1(x).relu()))  # shared with the first convolution
    dropped = WideResNet(10, depth=10, widen_factor=1, dropout=1.0).blocks[0]
    assert torch.equal(dropped(x), x)  # nothing reaches the second convolution


def test_recurrent_networks_read_rows_from_top_to_bottom() -> None:
    network = Recurrent(10, "rnn", hidden_size=16, image_size=4)
    cell = nn.RNNCell(12, 16)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in network.rnn.state_dict().items()})
    images = torch.randn(2, 3, 5, 4)
    state = torch.zeros(2, 16)
    for y in range(5):
        state = cell(torch.cat([images[:, channel, y] for channel in range(3)], dim=1), state)
    torch.testing.assert_close(network(images), network.fc(state))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_each_direction_of_the_last_layer_is_judged_where_it_ends(cell: Any) -> None:
    network = Recurrent(10, cell, hidden_size=16, num_layers=2, bidirectional=True, image_size=8)
    images = torch.randn(2, 3, 8, 8)
    outputs, _ = network.rnn(images.transpose(1, 2).flatten(2))
    ends = torch.cat([outputs[:, -1, :16], outputs[:, 0, 16:]], dim=1)
    torch.testing.assert_close(network(images), network.fc(ends))


@pytest.mark.parametrize(
    "network",
    [
        *(SoftmaxRegression, partial(MLP, hidden=[64], dropout=0.0), partial(NiN, dropout=0.0)),
        *(partial(ResNet, depth=20), partial(WideResNet, depth=10, widen_factor=1)),
        *(partial(Recurrent, cell=cell, hidden_size=32) for cell in ("rnn", "gru", "lstm")),
    ],
)
def test_each_network_learns_eight_images_by_heart(
    network: Callable[..., nn.Module], make_classifier: Callable[..., ImageClassifier]
) -> None:
    torch.manual_seed(0)
    module = make_classifier(network=network, image_size=16)
    images, targets = torch.randn(8, 3, 16, 16), torch.arange(8)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
    for _ in range(40):
        loss = nn.functional.cross_entropy(module(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1.5  # of 2.3 at chance
