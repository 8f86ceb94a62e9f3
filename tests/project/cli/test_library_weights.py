import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import yaml
from hub import publish, serve, use_caches
from safetensors.torch import save
from torchvision.models import ShuffleNet_V2_X0_5_Weights as Shuffle

from lightning_modules import ImageClassifier
from project.__main__ import main

VIT = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
GONE = "http://127.0.0.1:9"  # nothing answers there
QUICK = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1")
QUIET = ("--callbacks=false", "--data.batch_size=4", *QUICK)


@pytest.fixture
def shuffle_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish the weights of a small network of torchvision, and put their file into torch's cache."""
    folder = use_caches(monkeypatch, tmp_path, GONE)
    name, content = publish(monkeypatch, Shuffle.IMAGENET1K_V1, torchvision.models.shufflenet_v2_x0_5(), GONE)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return folder / name


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(args)
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    return err


SHUFFLE = ("--model.network=torchvision.models.shufflenet_v2_x0_5", "--model.pretrained=DEFAULT")


def test_published_weights_are_trained_tested_resumed_and_exported_without_their_file(
    shuffle_file: Path, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = torch.load(shuffle_file, weights_only=True)
    args = ["fit", *fast, *QUIET, *SHUFFLE, "--data.normalize=pretrained", f"--runs_dir={tmp_path}/runs"]
    with pytest.warns(UserWarning, match="Images have 32 pixels, but the weights ShuffleNet.* of 224 pixels"):
        cli = main([*args, "--model.optimizer.lr=0"])
    assert "336 of the network's 338 tensors" in " ".join(capsys.readouterr().out.split())
    network = cli.model.network
    assert torch.equal(network.conv5[0].weight, published["conv5.0.weight"])
    assert network.maxpool.stride == 2  # the stem is unchanged
    assert cli.datamodule.mean == [0.485, 0.456, 0.406]

    shuffle_file.unlink()
    run = f"--run={cli.run_dir}"
    resumed = main(["fit", run, "--trainer.max_epochs=2", "--callbacks=false"])
    assert torch.equal(resumed.model.network.conv5[0].weight, published["conv5.0.weight"])
    assert main(["test", run, "--report=false"]).datamodule.std == [0.229, 0.224, 0.225]
    module = ImageClassifier.load_from_checkpoint(cli.run_dir / "checkpoints/best.ckpt").eval()
    assert module.network.maxpool.stride == 2
    assert module.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert main(["predict", run, str(next(Path(cli.datamodule.root).rglob("*.png")))])
    main(["export", run, "--format=torch_export", f"--output={tmp_path}/net.pt2"])


def test_name_of_timm_is_a_network_on_the_command_line_and_in_configs(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("test_vit")
    (tmp_path / "mine.yaml").write_text("model: {init_args: {network: 'timm:test_vit', pretrained: r160_in1k}}")
    with serve({VIT: save(source.state_dict())}) as (address, requests):
        use_caches(monkeypatch, tmp_path, address)
        options = [*QUIET, f"--runs_dir={tmp_path}/runs"]
        cli = main(["fit", *fast, f"--config={tmp_path}/mine.yaml", *options, "--data.normalize=pretrained"])
        assert requests.count(f"GET {VIT}") == 1
        again = main(["fit", *fast, *options, "--model.network=timm:test_vit", "--model.network.adapt_stem=false"])
    assert cli.model.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert type(cli.model.network) is type(again.model.network)
    assert main(["test", f"--run={cli.run_dir}", "--report=false"])


def test_network_of_the_hub_is_saved_as_its_architecture(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("test_vit", num_classes=3)
    config = b'{"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": {"fixed_input_size": true}}'
    files = {"/me/photos/resolve/main/config.json": config}
    files["/me/photos/resolve/main/model.safetensors"] = save(source.state_dict())
    with serve(files) as (address, _):
        use_caches(monkeypatch, tmp_path, address)
        options = [*QUIET, f"--runs_dir={tmp_path}/runs", "--model.pretrained=DEFAULT"]
        cli = main(["fit", *fast, *options, "--model.network=timm:hf-hub:me/photos", "--model.optimizer.lr=0"])
    assert torch.equal(cli.model.network.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    settings = yaml.safe_load((cli.run_dir / "config.yaml").read_text())["model"]["init_args"]
    assert settings["network"]["init_args"]["function"] == "timm:test_vit"
    assert settings["pretrained"] == "hf-hub:me/photos"
    shutil.rmtree(tmp_path / "hf")
    use_caches(monkeypatch, tmp_path, GONE)
    assert ImageClassifier.load_from_checkpoint(cli.run_dir / "checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.pretrained=DEFAULT"],
            "Expected a file of weights at --model.pretrained, but DEFAULT does not exist.",
        ),
        ([*SHUFFLE, "--model.pretrained=IMAGENET1K_V3"], "IMAGENET1K_V3. Use DEFAULT, or another of 2, such as Shuf"),
        (
            ["--model.network=timm:resnet81"],
            r"Expected a network of timm, but it has no resnet81\. Did you mean timm:resnet",
        ),
        (
            [
                "--model.network=lightning_modules.networks.ZooNetwork",
                f"--model.network.function={SHUFFLE[0][16:]}",
                "--model.network.adapt_stem=true",
                SHUFFLE[1],
            ],
            "Expected adapt_stem false for ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1",
        ),
        (["--data.normalize=pretrained"], "--data.normalize pretrained, but got none. Use --data.normalize true"),
    ],
)
def test_mistakes_are_reported_before_data_is_read(
    options: list[str], message: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, error_of(["fit", *fast, *options, "--data.root=gone", f"--runs_dir={tmp_path}"], capsys))


def test_normalisation_of_a_checkpoint_is_taken_with_its_weights(
    fast: list[str], plain_run: Path, tmp_path: Path
) -> None:
    best = plain_run / "checkpoints/best.ckpt"
    saved: dict[str, Any] = torch.load(best, weights_only=True)["hyper_parameters"]
    options = ["--data.normalize=pretrained", f"--model.pretrained={best}", f"--runs_dir={tmp_path}"]
    assert main(["fit", *fast, *QUIET, *options]).datamodule.mean == saved["mean"]


def test_weights_of_a_run_with_an_adapted_stem_match_it_again(fast: list[str], tmp_path: Path) -> None:
    args = ["fit", *fast, *QUIET, SHUFFLE[0], f"--runs_dir={tmp_path}"]
    first = main(args)
    second = main([*args, f"--model.pretrained={first.run_dir}/checkpoints/best.ckpt", "--model.optimizer.lr=0"])
    stems = [cli.model.network.conv1[0] for cli in (first, second)]
    assert stems[0].stride == stems[1].stride == (1, 1)
    assert torch.equal(stems[0].weight, stems[1].weight)


def test_published_weights_are_loaded_for_grey_images(shuffle_file: Path, fast: list[str], tmp_path: Path) -> None:
    published = torch.load(shuffle_file, weights_only=True)["conv1.0.weight"]
    cli = main(
        ["fit", *fast, *QUIET, *SHUFFLE, "--data.channels=1", "--model.optimizer.lr=0", f"--runs_dir={tmp_path}"]
    )
    assert torch.equal(cli.model.network.conv1[0].weight, published.sum(1, keepdim=True))
