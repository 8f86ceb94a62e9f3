from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from training import measured

from lightning_modules.extras.autoencoder import Autoencoder, ConvAutoencoder
from lightning_modules.networks import LeNet
from project.__main__ import main

Make = Callable[..., Autoencoder]


class Grey(nn.Module):
    """Reconstruct every image as one grey level, 0.25."""

    def __init__(self, code_size: int) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.tensor(0.25))

    def forward(self, images: Tensor) -> Tensor:
        return self.shade.expand(images.shape)


@pytest.fixture
def make() -> Make:
    def make(**changes: Any) -> Autoencoder:
        arguments: dict[str, Any] = {
            "network": Grey,
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "class_names": ["cat", "dog"],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "image_size": 32,
        }
        return Autoencoder(**(arguments | changes))

    return make


def logged(module: Autoencoder, step: str, images: Tensor) -> dict[str, Any]:
    with patch.object(module, "log") as log:
        getattr(module, step)((images, torch.zeros(len(images), dtype=torch.int64)), 0)
    return {call.args[0]: call.args[1] for call in log.call_args_list}


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        # half of the pixels are black, half are white, and all are reconstructed as 0.25
        (nn.MSELoss(), (0.25**2 + 0.75**2) / 2),
        (nn.L1Loss(), (0.25 + 0.75) / 2),
        (nn.BCELoss(), (-log(0.75) - log(0.25)) / 2),
        (nn.L1Loss(reduction="sum"), (0.25 + 0.75) / 2 * 3 * 32 * 32),  # per image
    ],
)
@pytest.mark.parametrize("autocast", [False, True])
def test_images_are_compared_as_they_were_before_normalisation(
    make: Make, loss: nn.Module, by_hand: float, autocast: bool
) -> None:
    module = make(loss=loss)
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[:, :, ::2] = 255
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = logged(module, "validation_step", module.normalize(images))["val/loss"]
    assert value.item() == pytest.approx(by_hand, rel=1e-4)


def test_sum_is_trained_on_and_logged_per_image(make: Make) -> None:
    module = make(loss=nn.MSELoss(reduction="sum"))
    images = torch.randn(4, 3, 32, 32)
    with patch.object(module, "log_training") as log:
        loss = module.training_step((images, torch.zeros(4)), 0)
    log.assert_called_once()
    shown = log.call_args.kwargs["loss"]
    torch.testing.assert_close(loss, (module.denormalize(images) - 0.25).square().sum())
    torch.testing.assert_close(shown, loss.detach() / 4)


def test_each_view_is_an_image_of_its_own(make: Make) -> None:
    module, views = make(), torch.randn(2, 5, 3, 32, 32)
    whole = logged(module, "test_step", views.flatten(0, 1))["test/loss"]
    torch.testing.assert_close(logged(module, "test_step", views)["test/loss"], whole)
    assert module.predict_step((views, torch.zeros(2)), 0).shape == (10, 3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": LeNet}, r"reconstructs an image \(1, 3, 32, 32\), but LeNet returns \(1, 128\)"),
        ({"network": ConvAutoencoder, "image_size": 28}, r"ConvAutoencoder returns \(1, 3, 24, 24\).* a multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        make(**changes)


def test_network_makes_images_from_0_to_1_of_a_code() -> None:
    network = ConvAutoencoder(16, width=4, image_size=48)
    images = 100 * torch.randn(2, 3, 48, 48)
    assert network.encoder(images).shape == (2, 16)
    assert network(images).shape == images.shape
    assert 0 <= network(images).min() < network(images).max() <= 1


def test_command_keeps_the_checkpoint_of_the_lowest_loss(fast: list[str], tmp_path: Path) -> None:
    options = ["--config=configs/autoencoder.yaml", *fast[2:], "--callbacks=false", "--trainer.limit_train_batches=4"]
    options += ["--model.code_size=8", "--model.network.width=4", f"--runs_dir={tmp_path}"]
    cli = main(["fit", *options, "--test_after_fit=true"])
    assert set(measured(cli.run_dir)) == {"val/loss"}
    assert set(measured(next(cli.run_dir.glob("test/*")))) == {"test/loss"}
    module = Autoencoder.load_from_checkpoint(cli.run_dir / "checkpoints" / "best.ckpt", weights_only=True).eval()
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_images_of_any_channels_are_reconstructed() -> None:
    assert ConvAutoencoder(8, in_channels=4)(torch.zeros(2, 4, 32, 32)).shape == (2, 4, 32, 32)
