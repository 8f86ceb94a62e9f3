import pytest
import torch

from lightning_modules.networks import LeNet, ResNet


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


# He et al., table 6, in millions; 18, 34 and 50 worked out by hand for ten classes and a 3x3 stem
@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (18, 11.17), (34, 21.28), (50, 23.52)],
)
def test_resnet_is_as_large_as_published(depth: int, millions: float) -> None:
    assert size(ResNet(10, depth)) / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize("depth", [18, 20, 32, 34, 44, 50, 56])
def test_resnet_has_as_many_layers_as_its_name_says(depth: int) -> None:
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
