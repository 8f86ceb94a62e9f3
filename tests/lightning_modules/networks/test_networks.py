from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_modules import ImageClassifier
from lightning_modules.networks import MLP, LeNet, NiN, Recurrent, ResNet, SoftmaxRegression, WideResNet
from project.__main__ import main


def size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_lenet_has_the_names_and_shapes_of_published_weights() -> None:
    shapes = {name: tuple(value.shape) for name, value in LeNet(10).state_dict().items()}
    assert shapes == {
        "conv1.weight": (6, 3, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }
    assert [name for name, _ in LeNet(10).named_children()] == [
        *("conv1", "pool1", "conv2", "pool2"),
        *("fc1", "fc2", "fc3"),
    ]


# He et al., table 6, in millions, where 110 has 1.7; it, 18, 34 and 50 worked out by hand for ten classes, a 3x3 stem
@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.73), (18, 11.17), (34, 21.28), (50, 23.52)],
)
def test_resnet_is_as_large_as_published(depth: int, millions: float) -> None:
    assert size(ResNet(10, depth)) / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize("depth", [18, 20, 32, 34, 44, 50, 56, 110])
def test_resnet_has_as_many_layers_as_in_its_name(depth: int) -> None:
    layers = [
        name
        for name, module in ResNet(10, depth).named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == depth


@pytest.mark.parametrize("depth", [18, 20, 50])
def test_resnet_keeps_the_resolution_until_its_second_stage(depth: int) -> None:
    network = ResNet(7, depth).eval()
    sizes = []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, args, output: sizes.append(output.shape[-1]))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sizes == [32, 16, 8, 4][: len(sizes)]


def test_cifar_resnets_have_no_parameters_in_their_shortcuts() -> None:
    assert not [name for name, _ in ResNet(10, 20).named_parameters() if "shortcut" in name]
    assert [name for name, _ in ResNet(10, 18).named_parameters() if "shortcut" in name]


def test_shortcut_pads_new_channels_with_zeros() -> None:
    block = ResNet(10, 20).stages[1][0]
    x = torch.randn(1, 16, 8, 8)
    out = block.shortcut(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_softmax_regression_is_one_template_image_for_each_class() -> None:
    network = SoftmaxRegression(10, image_size=32)
    assert size(network) == 3 * 32 * 32 * 10 + 10
    images = torch.randn(2, 3, 32, 32)
    templates = network.fc.weight.view(10, 3, 32, 32)
    expected = (images[:, None] * templates).sum(dim=(2, 3, 4)) + network.fc.bias
    torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-4)


def test_mlp_has_a_relu_and_dropout_after_each_hidden_layer_and_none_after_the_last() -> None:
    network = MLP(10, hidden=[64, 32], dropout=0.25, image_size=8)
    assert [type(layer).__name__ for layer in network] == [
        *("Flatten", "Linear", "ReLU", "Dropout"),
        *("Linear", "ReLU", "Dropout", "Linear"),
    ]
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [
        *((64, 192), (64,), (32, 64), (32,)),
        *((10, 32), (10,)),
    ]
    assert network[3].p == network[6].p == 0.25
    assert size(MLP(10, image_size=32)) == 1_707_274  # 3072 x 512 + 512, 512 x 256 + 256, 256 x 10 + 10


@pytest.mark.parametrize("network", [SoftmaxRegression, MLP, Recurrent])
def test_image_size_comes_from_the_data(
    network: type[nn.Module], make_classifier: Callable[..., ImageClassifier]
) -> None:
    assert make_classifier(network=network, image_size=16)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert network(10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_nin_is_as_large_as_published() -> None:
    assert size(NiN(10)) == 966_986  # the authors' network: three convolutions and six of 1x1, with biases


def test_nin_averages_a_map_for_each_class() -> None:
    network = NiN(7).eval()
    maps: list[torch.Tensor] = []
    for block in (network.block1, network.block2, network.block3):
        block.register_forward_hook(lambda module, args, output: maps.append(output))
    logits = network(torch.randn(4, 3, 32, 32))
    assert [tuple(each.shape[1:]) for each in maps] == [(96, 32, 32), (192, 16, 16), (7, 8, 8)]
    torch.testing.assert_close(logits, maps[-1].mean(dim=(2, 3)))
    assert maps[0].min() == 0
    assert logits.min() < 0


# Zagoruyko and Komodakis, tables 4 and 5, in millions
@pytest.mark.parametrize(
    ("depth", "widen_factor", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 4, 2.8), (16, 8, 11.0), (28, 10, 36.5)],
)
def test_wide_resnet_is_as_large_as_published(depth: int, widen_factor: int, millions: float) -> None:
    with torch.device("meta"):
        assert size(WideResNet(10, depth, widen_factor)) / 1e6 == pytest.approx(millions, abs=0.06)


def test_wide_resnet_rejects_an_impossible_depth() -> None:
    with pytest.raises(MisconfigurationException, match=r"6n \+ 4.*but got 20"):
        WideResNet(10, depth=20)


def test_wide_resnet_shrinks_between_its_stages_only() -> None:
    network = WideResNet(7, depth=16, widen_factor=1).eval()
    sizes = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, args, output: sizes.append(tuple(output.shape[1:])))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sizes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_wide_resnet_activates_before_its_convolutions_and_not_after_them() -> None:
    first, second = WideResNet(10, depth=16, widen_factor=2).eval().blocks[:2]
    x = torch.randn(2, 32, 8, 8)
    nn.init.zeros_(second.conv2.weight)
    assert torch.equal(second(x), x)  # the identity path is unchanged
    nn.init.zeros_(first.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(first(x), first.shortcut(first.bn1(x).relu()))  # shared with the first convolution


def test_wide_resnet_drops_between_the_convolutions_of_a_block() -> None:
    network = WideResNet(10, depth=10, widen_factor=1, dropout=0.3)
    drops = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert drops == {"blocks.0.dropout": 0.3, "blocks.1.dropout": 0.3, "blocks.2.dropout": 0.3}
    block = WideResNet(10, depth=10, widen_factor=1, dropout=1.0).blocks[0]
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_networks_are_as_large_as_their_gates_make_them(cell: Any, gates: int, bidirectional: bool) -> None:
    network = Recurrent(10, cell, hidden_size=16, num_layers=2, bidirectional=bidirectional, image_size=8)
    directions = 2 if bidirectional else 1
    first, second = (gates * 16 * (inputs + 16 + 2) for inputs in (3 * 8, directions * 16))
    assert size(network) == directions * (first + second) + 10 * (directions * 16 + 1)


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
    ("name", "arguments"),
    [
        ("MLP", {"hidden": [32, 16], "dropout": 0.2}),
        ("WideResNet", {"depth": 10, "widen_factor": 1, "dropout": 0.1}),
        ("Recurrent", {"cell": "lstm", "hidden_size": 16, "bidirectional": True}),
    ],
)
def test_networks_train_from_yaml(name: str, arguments: dict[str, Any], fast: list[str], tmp_path: Path) -> None:
    network = {"class_path": f"lightning_modules.networks.{name}", "init_args": arguments}
    (tmp_path / "overlay.yaml").write_text(yaml.dump({"model": {"init_args": {"network": network}}}))
    cli = main(
        [
            *("fit", *fast, f"--config={tmp_path / 'overlay.yaml'}", f"--runs_dir={tmp_path}"),
            *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"),
            *("--callbacks=false", "--trainer.enable_model_summary=false", "--data.batch_size=4"),
        ]
    )
    assert cli.trainer.global_step == 2
    module = ImageClassifier.load_from_checkpoint(cli.run_dir / "checkpoints/last.ckpt", map_location="cpu")
    assert type(module.network).__name__ == name


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
