from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from datamodules import ProgressiveResize, SampleDataModule
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from lightning_modules.networks.airbench import Airbench
from project.__main__ import main

Make = Callable[..., ImageClassifier]
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def coloured_noise(count: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), "circular"), 3, 1) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1) * 10


def test_parameters_are_counted_as_published() -> None:
    network = Airbench(10)
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    whitening, norm_biases, head = 24 * 12 + 24, 2 * (64 + 256 + 256), 256 * 10
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trained == convolutions + norm_biases + head + 24
    frozen_scales = norm_biases
    assert sum(parameter.numel() for parameter in network.parameters()) == trained + whitening - 24 + frozen_scales


def test_whitened_outputs_are_uncorrelated_with_unit_variance_and_come_with_their_negatives() -> None:
    network = Airbench(10, [8, 8, 8])
    images = coloured_noise(500)
    network.whiten(images)
    outputs = F.conv2d(images, network.whitening.weight).movedim(1, 0).flatten(1)
    torch.testing.assert_close(outputs[:12], -outputs[12:])
    network.whiten(torch.zeros(4, 3, 16, 16))  # black images give finite filters
    assert network.whitening.weight.isfinite().all()
    covariance = outputs[:12] @ outputs[:12].T / outputs.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12), atol=0.02, rtol=0)


def test_images_of_many_sizes_give_logits_from_convolutions_that_begin_as_the_identity() -> None:
    network = Airbench(7, [32, 8, 8]).eval()
    for size in (16, 20, 64):
        x = network.whitening(images := torch.randn(2, 3, size, size))
        torch.testing.assert_close(network.blocks[0].conv1(x)[:, :24], x)
        assert network(images).shape == (2, 7)


def test_training_whitens_once_in_the_life_of_a_network(make_classifier: Make, tmp_path: Path) -> None:
    images = coloured_noise(64)
    first, others = (DataLoader(TensorDataset(each, torch.arange(64) % 10), 16) for each in (images, 3 * images))
    module = make_classifier(network=partial(Airbench, widths=[8, 8, 8]))
    expected = Airbench(10, [8, 8, 8])
    expected.whiten(images)
    for loader in (first, others):
        Trainer(accelerator="cpu", max_steps=1, **QUIET).fit(module, loader)
        torch.testing.assert_close(module.network.whitening.weight, expected.whitening.weight)
    weights = module.network.state_dict()
    for removed in ([], ["whitening.weight", "whitened"]):
        torch.save({name: weights[name] for name in weights if name not in removed}, tmp_path / "some.pth")
        tuned = make_classifier(network=partial(Airbench, widths=[8, 8, 8]), pretrained=str(tmp_path / "some.pth"))
        Trainer(accelerator="cpu", max_steps=1, **QUIET).fit(tuned, others)
        assert torch.equal(tuned.network.whitening.weight, weights["whitening.weight"]) == (not removed)


class Whitened(LeNet):
    """A network that does not record whether it is whitened."""

    def whiten(self, images: torch.Tensor) -> None:
        self.images = images


def test_a_network_need_not_record_that_it_is_whitened(make_classifier: Make) -> None:
    module, images = make_classifier(network=Whitened), torch.randn(20, 3, 32, 32)
    loader = DataLoader(TensorDataset(images, torch.arange(20) % 10), 8)
    Trainer(accelerator="cpu", max_steps=1, **QUIET).fit(module, loader)
    assert torch.equal(module.network.images, images)


def test_whitening_is_fitted_to_whole_images_and_not_to_augmented_ones(
    make_classifier: Make, sample_root: Path
) -> None:
    data = SampleDataModule(str(sample_root), batch_size=100, batch_transforms=[ProgressiveResize({0: 17})])
    module = make_classifier(network=partial(Airbench, widths=[8, 8, 8]), mean=data.mean, std=data.std)
    Trainer(accelerator="cpu", max_steps=1, **QUIET).fit(module, data)
    expected = Airbench(10, [8, 8, 8])
    expected.whiten(module.normalize(data.datasets["train"].load(torch.arange(1258))[0]))
    torch.testing.assert_close(module.network.whitening.weight, expected.whitening.weight)


@pytest.mark.parametrize("overlays", [[], pytest.param(["airbench_sgd"], marks=pytest.mark.slow)])
def test_recipe_trains_at_reduced_width(overlays: list[str], sample_root: Path, tmp_path: Path) -> None:
    configs = [f"--config=configs/{name}.yaml" for name in ["airbench", *overlays]]
    cli = main(
        [
            "fit",
            *configs,
            "--data=datamodules.SampleDataModule",
            f"--data.root={sample_root}",
            "--data.batch_size=64",
            "--model.network.widths=[16,32,32]",
            "--trainer.max_epochs=2",
            "--trainer.precision=32",
            "--trainer.enable_progress_bar=false",
            "--callbacks=false",
            f"--runs_dir={tmp_path}",
        ]
    )
    # the overlay validates an average of weights, which few steps hardly change
    metric, least = ("train/acc", 0.6) if overlays else ("val/acc", 0.8)
    assert cli.trainer.callback_metrics[metric] > least
    # grey images leave two thirds of the whitened directions empty, and norms must not amplify their noise
    assert cli.model.network.whitening.bias.abs().max() < 2
    groups = {group["name"]: group for group in cli.trainer.optimizers[0].param_groups}
    assert set(groups) >= {"whitening.bias", "head.weight", "default"} - ({"head.weight"} if overlays else set())
    assert groups["whitening.bias"]["lr"] == 0


@pytest.mark.parametrize("scale", [None, 1 / 9])
def test_initial_logits_do_not_depend_on_the_scale(scale: float | None) -> None:
    torch.manual_seed(0)
    network = Airbench(10, scale=scale)
    assert (network.head.weight * network.scale).std().item() == pytest.approx(1 / 256, rel=0.05)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_any_channels_are_whitened(channels: int) -> None:
    torch.manual_seed(0)
    network = Airbench(7, in_channels=channels)
    network.whiten(torch.randn(50, channels, 32, 32))
    images = torch.randn(50, channels, 32, 32)
    outputs = network.whitening(images).transpose(0, 1).flatten(1)
    assert len(outputs) == 8 * channels
    torch.testing.assert_close(outputs.var(1), torch.ones(8 * channels), atol=0.1, rtol=0)
    assert network.eval()(images).shape == (50, 7)
