"""Fine-tuning as configs/finetune.yaml does it, and what it is good for."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hub import publish, use_caches
from PIL import Image
from sklearn.datasets import load_digits
from training import measured

from project.__main__ import main

QUIET = ("--callbacks=false", "--report=false", "--data.num_workers=0", "--trainer.enable_progress_bar=false")


@pytest.mark.slow
def test_recipe_trains_the_head_first_and_then_the_network_on_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    folder = use_caches(monkeypatch, tmp_path, "")
    name, content = publish(monkeypatch, weights, torchvision.models.resnet18())
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    generator = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "my_photos" / kind).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(0, 256, (260, 240 + number, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_photos" / kind / f"{number}.jpg")
    args = ["fit", "--config=configs/finetune.yaml", f"--data.root={tmp_path}/my_photos", "--data.batch_size=4", *QUIET]
    args += [f"--runs_dir={tmp_path}/runs", "--trainer.limit_train_batches=1", "--trainer.accelerator=cpu"]
    first = main([*args, "--trainer.max_epochs=2"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "120 of the network's 122 tensors loaded from ResNet18_Weights.IMAGENET1K_V1" in out
    assert "frozen until epoch 2" in out
    before = torch.load(folder / name, weights_only=True)
    network = first.model.network
    assert torch.equal(network.layer4[1].conv2.weight, before["layer4.1.conv2.weight"])
    assert network.fc.weight.shape == (2, 512)
    assert (first.datamodule.mean, first.datamodule.image_size) == ([0.485, 0.456, 0.406], 224)
    (folder / name).unlink()
    more = main(["fit", f"--run={first.run_dir}", "--trainer.max_epochs=3", "--trainer.limit_train_batches=2"])
    assert not torch.equal(more.model.network.layer4[1].conv2.weight, before["layer4.1.conv2.weight"])


def coloured_digits(root: Path, chosen: range, counts: dict[str, int]) -> Path:
    """Write noisy handwritten digits, each in two random colours, by stage: a network must learn to ignore colours."""
    source, generator = load_digits(), np.random.default_rng(chosen.start)
    for digit in chosen:
        own = np.split(source.images[source.target == digit], [90, 120])
        for (stage, count), images in zip(counts.items(), own, strict=True):
            (root / stage / str(digit)).mkdir(parents=True)
            for number in range(count):
                shape = np.kron(images[number % len(images)] / 16, np.ones((4, 4)))[..., None]
                back, front = generator.random((2, 3))
                pixels = back + (front - back) * shape + 0.1 * generator.normal(size=(32, 32, 3))
                Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(
                    root / stage / str(digit) / f"{number}.png"
                )
    return root


@pytest.mark.slow
def test_weights_of_other_classes_help_with_few_images(tmp_path: Path) -> None:
    """Scaled down: 10 images of each digit from 5 to 9, and weights of a short run on 0 to 4. Chance is 0.2."""
    args = ["fit", "--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", *QUIET]
    args += ["--data.batch_transforms=[]", "--test_after_fit=true", f"--runs_dir={tmp_path}/runs"]
    args += ["--model.optimizer=torch.optim.AdamW", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu"]
    source = coloured_digits(tmp_path / "source", range(5), {"train": 900, "val": 20, "test": 20})
    options = ["--data.batch_size=50", "--trainer.max_epochs=25", "--model.optimizer.lr=0.003"]
    run = main([*args, f"--data.root={source}", *options]).run_dir
    target = coloured_digits(tmp_path / "target", range(5, 10), {"train": 10, "val": 20, "test": 50})
    args += [f"--data.root={target}", "--data.batch_size=10", "--trainer.max_epochs=15", "--model.optimizer.lr=0.002"]
    tuned = [f"--model.pretrained={run}/checkpoints/best.ckpt", "--data.normalize=pretrained"]
    for seed in range(3):
        runs = [main([*args, f"--seed_everything={seed}", *more]).run_dir for more in ([], tuned)]
        without, with_weights = (measured(next((run / "test").iterdir()))["test/acc"] for run in runs)
        print(seed, without, with_weights)  # shown if it fails
        assert with_weights > without + 0.05  # measured: 0.16, 0.11 and 0.10
