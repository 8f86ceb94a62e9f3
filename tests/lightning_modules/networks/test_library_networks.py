from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_modules import ImageClassifier
from lightning_modules.networks import ZooNetwork
from project.__main__ import main

TINY_VIT = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def make(name: str, image_size: int = 32, num_classes: int = 10, **changes: Any) -> nn.Module:
    path = name if name.startswith("timm.") else f"torchvision.models.{name}"
    return ZooNetwork(num_classes, path, image_size, **changes)


def strides(network: nn.Module) -> dict[str, Any]:
    return {name: module.stride for name, module in network.named_modules() if isinstance(module, Strided)}


def sizes(network: nn.Module, layer: str) -> list[int]:
    """Return the size of a layer's output for an image of 32x32 pixels, then that of the logits."""
    seen: list[int] = []
    network.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.extend(output.shape[1:]))
    logits = network.eval()(torch.zeros(1, 3, 32, 32))
    return [*seen, *logits.shape]


FAMILIES: list[tuple[str, dict[str, Any], list[str], str, list[int]]] = [
    ("vgg16_bn", {}, ["features.6", "features.13"], "features", [512, 4, 4]),
    ("googlenet", {"init_weights": False}, ["conv1.conv", "maxpool1"], "inception5b", [1024, 4, 4]),
    ("resnet18", {}, ["conv1", "maxpool"], "layer4", [512, 4, 4]),
    ("mobilenet_v3_small", {}, ["features.0.0", "features.1.block.0.0"], "features", [576, 4, 4]),
    ("shufflenet_v2_x0_5", {}, ["conv1.0", "maxpool"], "conv5", [1024, 4, 4]),
    (
        "regnet_y_400mf",
        {},
        ["stem.0", "trunk_output.block1.block1-0.proj.0", "trunk_output.block1.block1-0.f.b.0"],
        "trunk_output",
        [440, 4, 4],
    ),
    ("convnext_tiny", {}, ["features.0.0"], "features", [768, 4, 4]),
    ("VisionTransformer", TINY_VIT, [], "conv_proj", [16, 4, 4]),
]


@pytest.mark.parametrize(
    ("name", "arguments", "undone", "layer", "size"), FAMILIES, ids=[family[0] for family in FAMILIES]
)
def test_first_strides_of_each_family_are_undone_and_no_others(
    name: str, arguments: dict[str, Any], undone: list[str], layer: str, size: list[int]
) -> None:
    large = name.startswith(("vgg", "convnext"))
    with torch.device("meta" if large else "cpu"):  # the meta device allocates no memory, but each layer takes longer
        original = strides(make(name, 128, adapt_stem=False, arguments=arguments))
        network = make(name, arguments=arguments)
        assert [layer for layer, stride in strides(network).items() if stride != original[layer]] == undone
        assert sizes(network, layer) == [*size, 1, 10]
        assert isinstance(network.train()(torch.randn(2, 3, 32, 32)), torch.Tensor)  # without auxiliary heads


def test_undone_convolution_keeps_the_centre_of_its_kernel_and_all_else() -> None:
    torch.manual_seed(0)
    original = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    torch.manual_seed(0)
    same = make("shufflenet_v2_x0_5").state_dict()
    for name, value in original.state_dict().items():
        assert torch.equal(value, same[name])  # its first convolution is 3x3
    torch.manual_seed(0)
    weight = torchvision.models.resnet18(num_classes=10).conv1.weight
    torch.manual_seed(0)
    network = make("resnet18")
    assert torch.equal(network.conv1.weight, weight[:, :, 2:5, 2:5])
    x = torch.randn(1, 3, 8, 8)
    expected = nn.functional.conv2d(x, weight[:, :, 2:5, 2:5], padding=1)
    torch.testing.assert_close(network.conv1(x), expected)
    assert torch.equal(network.maxpool(expected), expected)


def test_removed_strides_are_reported_and_fewer_for_larger_images(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        make("VisionTransformer", arguments=TINY_VIT)
        for size in (28, 56, 111, 112):
            network = make("shufflenet_v2_x0_5", size)
    assert all(module.training and not module._forward_pre_hooks for module in network.modules())
    assert all(norm.num_batches_tracked == 0 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
    assert [record.message for record in caplog.records] == [
        "Strides of torchvision.models.VisionTransformer removed for 32x32 pixels: none.",
        *(
            f"Strides of torchvision.models.shufflenet_v2_x0_5 removed for {size}x{size} pixels: {names}."
            for size, names in ((28, "conv1.0, maxpool"), (56, "conv1.0"), (111, "conv1.0"), (112, "none"))
        ),
    ]


def no_network(num_classes: int) -> int:
    return num_classes


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("torchvision.models.resnet81", {}, "fails: .* no attribute 'resnet81'.* Names like it: resnet18"),
        ("torchvision.modles.resnet18", {}, "fails: No module named 'torchvision.modles'"),
        ("resnet18", {}, "such as torchvision.models.resnet18, but resnet18 .* fails"),
        ("torch.nn.ReLU", {}, "fails: .*unexpected keyword argument 'num_classes'"),
        (f"{__name__}.no_network", {}, "fails: it returns int"),
        ("torchvision.models.resnet18", {"depth": 3}, "fails: .*unexpected keyword argument 'depth'"),
    ],
)
def test_mistakes_are_reported_in_one_line(path: str, arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(MisconfigurationException, match=message) as error:
        ZooNetwork(10, path, 32, arguments=arguments)
    assert "\n" not in str(error.value)


def test_a_network_that_rejects_the_images_is_unchanged_and_named(make_classifier: Callable) -> None:
    arguments = TINY_VIT | {"image_size": 64}
    network = partial(ZooNetwork, function="torchvision.models.VisionTransformer", arguments=arguments)
    assert network(10).conv_proj.stride == (8, 8)
    with pytest.raises(MisconfigurationException, match=r"images of 32x32 pixels: Wrong image height! Expected 64"):
        make_classifier(network=network)


def test_image_size_comes_from_the_data(make_classifier: Callable[..., ImageClassifier]) -> None:
    network = partial(ZooNetwork, function="torchvision.models.VisionTransformer", arguments=TINY_VIT)
    assert make_classifier(network=network, image_size=16).network.image_size == 16


def test_a_network_trains_from_yaml_and_is_loaded_from_its_checkpoint(fast: list[str], tmp_path: Path) -> None:
    cli = main(
        [
            *("fit", *fast, f"--runs_dir={tmp_path}", "--data.batch_size=2", "--callbacks=false"),
            "--model.network=torchvision.models.shufflenet_v2_x0_5",
            *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"),
        ]
    )
    module = ImageClassifier.load_from_checkpoint(cli.run_dir / "checkpoints/last.ckpt", map_location="cpu").eval()
    assert module.classify(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 10)
    assert module.network.maxpool.stride == (1, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "layer", "stride"),
    [
        ("timm.models.resnet18", {}, "maxpool", (1, 1)),
        ("timm.models.convnext_atto", {}, "stem.0", (1, 1)),
        ("timm.create_model", {"model_name": "test_efficientnet"}, "conv_stem", (1, 1)),
        ("timm.models.vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4}, "patch_embed.proj", (4, 4)),
    ],
)
def test_networks_of_timm_are_adapted_by_the_same_rule(
    name: str, arguments: dict[str, Any], layer: str, stride: tuple[int, int]
) -> None:
    network = make(name, arguments=arguments)
    assert network.get_submodule(layer).stride == stride
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
