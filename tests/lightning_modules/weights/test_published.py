import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from hub import publish, serve, use_caches
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import save
from torch import nn
from torchvision.models import ShuffleNet_V2_X0_5_Weights as Shuffle

from lightning_modules.networks import ZooNetwork
from lightning_modules.weights.pretrained import load_weights
from lightning_modules.weights.published import published_weights

SHUFFLE = "torchvision.models.shufflenet_v2_x0_5"
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ADDRESS = "http://127.0.0.1:9"  # nothing answers there


@pytest.fixture(scope="module")
def shuffle() -> nn.Module:
    return torchvision.models.shufflenet_v2_x0_5()


@pytest.mark.parametrize(
    "name",
    [
        "DEFAULT",
        "IMAGENET1K_V1",
        "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1",
        "torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT",
    ],
)
def test_weights_of_torchvision_have_several_names(name: str) -> None:
    published = published_weights(SHUFFLE, name)
    assert published.name == "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert (published.mean, published.std) == IMAGENET
    assert published.image_size == 224


def test_weights_of_torchvision_are_downloaded_once(
    shuffle: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes] = {}
    with serve(files) as (address, requests):
        folder = use_caches(monkeypatch, tmp_path, address)
        name, content = publish(monkeypatch, Shuffle.IMAGENET1K_V1, shuffle, address)
        files[f"/{name}"] = content
        network = ZooNetwork(5, SHUFFLE, 32, adapt_stem=False)
        for _ in range(2):
            published = published_weights(SHUFFLE, "DEFAULT")
            load_weights(network, published.load(32), published.name)
    assert requests == [f"GET /{name}"]
    assert (folder / name).read_bytes() == content
    assert torch.equal(network.conv1[0].weight, shuffle.conv1[0].weight)
    assert network.fc.weight.shape[0] == 5
    table = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "336 of the network's 338 tensors loaded from ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1" in table
    assert "mismatched 2 fc.weight is (1000, 1024), not (5, 1024)" in table


@pytest.mark.parametrize("tag", ["DEFAULT", "r160_in1k", "test_vit.r160_in1k"])
def test_weights_of_timm_are_downloaded_once_and_fitted_to_the_image_size(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("test_vit")
    path = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    with serve({path: save(source.state_dict())}) as (address, requests):
        use_caches(monkeypatch, tmp_path, address)
        published = published_weights("timm:test_vit", tag)
        network = ZooNetwork(5, "timm:test_vit", 64, adapt_stem=False)
        load_weights(network, published.load(64), published.name)
        assert requests.count(f"GET {path}") == 1
    assert published.name == "test_vit.r160_in1k"
    assert (published.image_size, published.mean) == (160, [0.5, 0.5, 0.5])
    assert torch.equal(network.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert network.pos_embed.shape != source.pos_embed.shape
    published.load(64)  # from the cache, when the server has gone


def test_a_file_of_timm_can_be_put_next_to_those_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = use_caches(monkeypatch, tmp_path, ADDRESS)
    source = timm.create_model("test_resnet")
    published = published_weights("timm:test_resnet", "DEFAULT")
    assert published.file.parent == folder
    folder.mkdir(parents=True)
    published.file.write_bytes(save(source.state_dict()))
    assert torch.equal(published.load(32)["conv1.0.weight"], source.state_dict()["conv1.0.weight"])


def test_without_a_network_the_message_names_the_file_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = use_caches(monkeypatch, tmp_path, ADDRESS)
    monkeypatch.setattr(Shuffle.IMAGENET1K_V1.value, "url", f"{ADDRESS}/net-00000000.pth")
    with pytest.raises(MisconfigurationException) as caught:
        published_weights(SHUFFLE, "DEFAULT").load(32)
    assert str(caught.value) == (
        "The weights ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1 cannot be downloaded: <urlopen error [Errno 111] "
        f"Connection refused>. Try again, or download {ADDRESS}/net-00000000.pth on another machine and save it as "
        f"{folder}/net-00000000.pth."
    )


def test_file_that_the_hub_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve({}) as (address, _):
        folder = use_caches(monkeypatch, tmp_path, address)
        published = published_weights("timm:test_resnet", "DEFAULT")
        place = f"save it as {folder}/test_resnet.r160_in1k.safetensors"
        with pytest.raises(MisconfigurationException, match=rf"cannot be downloaded: .*model.safetensors .*{place}"):
            published.load(32)


def test_damaged_files_are_reported(shuffle: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, bytes] = {}
    with serve(files) as (address, _):
        folder = use_caches(monkeypatch, tmp_path, address)
        name, content = publish(monkeypatch, Shuffle.IMAGENET1K_V1, shuffle, address)
        files[f"/{name}"] = content[:-100]
        published = published_weights(SHUFFLE, "DEFAULT")
        with pytest.raises(MisconfigurationException, match="cannot be downloaded: invalid hash value"):
            published.load(32)
        assert not list(folder.iterdir())
    (folder / name).write_bytes(content[:-100])
    with pytest.raises(MisconfigurationException, match=r"net-\w+\.pth is damaged .* Delete it to"):
        published.load(32)


@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        (SHUFFLE, "IMAGENET1K_V2", "but got IMAGENET1K_V2. Use DEFAULT, or another of 2, such as .*IMAGENET1K_V1"),
        (SHUFFLE, "ResNet50_Weights.DEFAULT", r"of torchvision.models.shufflenet_v2_x0_5 .* but got ResNet50_Weights"),
        ("torchvision.models.VisionTransformer", "DEFAULT", "none are published for .*VisionTransformer"),
        (
            "timm:resnet18",
            "a1_in2k",
            r"but got resnet18\.a1_in2k\. Use DEFAULT, or another of 7, such as resnet18\.a1_in1k",
        ),
        ("timm:resnet18", "resnet50.a1_in1k", r"of timm:resnet18 .* but got"),
        ("timm:convnext_atto_rms", "DEFAULT", "none are published for timm:convnext_atto_rms"),
        ("timm:resnet18", "gone.pth", r"Expected a file or published weights .* but got .*gone\.pth"),
    ],
)
def test_unknown_weights_are_reported_with_the_nearest_names(function: str, name: str, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        published_weights(function, name)


def test_inputs_of_googlenet_have_the_scale_that_its_weights_expect() -> None:
    published = published_weights("torchvision.models.googlenet", "DEFAULT")
    network = torchvision.models.googlenet(aux_logits=False, init_weights=False).eval()
    pixels = torch.rand(1, 3, 64, 64)

    def output(mean: list[float], std: list[float]) -> Any:
        with torch.no_grad():
            return network((pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))

    own = output(published.mean, published.std)
    network.transform_input = True  # as torchvision does for these weights
    torch.testing.assert_close(own, output(*IMAGENET), rtol=1e-3, atol=1e-4)


def test_file_with_the_names_of_an_earlier_version_is_loaded_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.DenseNet121_Weights.IMAGENET1K_V1
    folder = use_caches(monkeypatch, tmp_path, ADDRESS)
    source = torchvision.models.densenet121()
    name, _ = publish(monkeypatch, weights, source, ADDRESS)
    state = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    old = {re.sub(r"(denselayer.*(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
    folder.mkdir(parents=True)
    torch.save(old, folder / name)
    network = ZooNetwork(7, "torchvision.models.densenet121", 224, adapt_stem=False)
    load_weights(network, published_weights("torchvision.models.densenet121", "DEFAULT").load(224), "it")
    assert torch.equal(network.features.norm5.weight, source.features.norm5.weight)
    layer = "features.denseblock1.denselayer1.conv1.weight"
    assert torch.equal(network.get_parameter(layer), source.get_parameter(layer))


def test_position_embeddings_of_torchvision_are_fitted_to_the_image_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = "torchvision.models.vit_b_32"
    weights = torchvision.models.ViT_B_32_Weights.IMAGENET1K_V1
    folder = use_caches(monkeypatch, tmp_path, ADDRESS)
    name, content = publish(monkeypatch, weights, torchvision.models.vit_b_32(), ADDRESS)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    network = ZooNetwork(1000, function, 64, adapt_stem=False)
    load_weights(network, published_weights(function, "DEFAULT").load(64), "it", whole=True)


def test_mnasnet_is_loaded() -> None:
    source, target = (torchvision.models.mnasnet0_5(num_classes=3) for _ in range(2))
    load_weights(target, dict(source.state_dict()), "it", whole=True)


def test_weights_of_another_network_are_rejected_and_changed_heads_are_not() -> None:
    weights = torchvision.models.resnet50(num_classes=2).state_dict()
    with pytest.raises(MisconfigurationException, match=r"at most 12 .* and 30 missing, but got 98 of .*24 mism"):
        load_weights(torchvision.models.resnet18(num_classes=2), weights, "net.pth")
    weights = torchvision.models.resnet18(num_classes=2).state_dict()  # all of them would match
    with pytest.raises(MisconfigurationException, match=r"but got 122 of the network's 218 .*96 missing in the file"):
        load_weights(torchvision.models.resnet34(num_classes=2), weights, "net.pth")
