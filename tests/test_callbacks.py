"""All callbacks in a real run: what they log, and what they leave behind."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ImageEvent
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import pil_to_tensor

from callbacks import ConfusionMatrix, ConvolutionKernels, FeatureMaps, WeightAndGradientHistograms
from lightning_modules import ImageClassifier
from lightning_modules.networks import ResNet

Make = Callable[..., ImageClassifier]


def all_callbacks(**options: int) -> list[Callback]:
    return [
        WeightAndGradientHistograms(**options),
        ConvolutionKernels(**options),
        FeatureMaps(["conv?", "pool1"], **options),
        ConfusionMatrix(**options),
    ]


def fit(module: ImageClassifier, folder: Path, callbacks: list[Callback], epochs: int = 2, **options) -> Trainer:
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, torch.arange(24) % 10), 8)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({"logger": TensorBoardLogger(folder, name="", version="")} | options),
    )
    trainer.fit(module, loader, loader)
    return trainer


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"images": 0, "histograms": 0}).Reload()


def decode(event: ImageEvent) -> torch.Tensor:
    return pil_to_tensor(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).float()


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


@pytest.fixture
def run(make_classifier: Make, tmp_path: Path) -> tuple[ImageClassifier, Path]:
    module = make_classifier()
    fit(module, tmp_path, all_callbacks())
    return module, tmp_path


def test_every_documented_tag_is_written_each_epoch(run: tuple[ImageClassifier, Path]) -> None:
    module, folder = run
    found = events(folder)
    tags = found.Tags()
    names = [name for name, _ in module.network.named_parameters()]
    assert set(tags["histograms"]) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    assert set(tags["images"]) == {
        *(f"{kind}/{layer}" for kind in ("kernels", "kernels_split") for layer in ("conv1", "conv2")),
        "kernels_colour/conv1",
        *(f"feature_maps/{layer}" for layer in ("conv1", "conv2", "pool1")),
        "confusion_matrix/val",
    }
    for tag in tags["images"]:
        assert [event.step for event in found.Images(tag)] == [3, 6]
    for tag in tags["histograms"]:
        assert [event.step for event in found.Histograms(tag)] == [2, 5]
    assert (folder / "confusion_matrix_val.png").is_file()


def test_cadence_is_kept(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, all_callbacks(every_n_epochs=2), epochs=3)
    found = events(tmp_path)
    for tag in found.Tags()["images"]:
        assert [event.step for event in found.Images(tag)] == [6]
    for tag in found.Tags()["histograms"]:
        assert [event.step for event in found.Histograms(tag)] == [5]


class Spy(Callback):
    """Keep the gradients of the last step before clipping."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.gradient = pl_module.network.fc3.weight.grad.clone()
        self.weight = pl_module.network.fc3.weight.detach().clone()


def test_gradients_are_those_before_clipping(make_classifier: Make, tmp_path: Path) -> None:
    spy = Spy()
    fit(make_classifier(), tmp_path, [spy, WeightAndGradientHistograms()], epochs=1, gradient_clip_val=1e-6)
    found = events(tmp_path)
    for tag, values in (("gradients", spy.gradient), ("weights", spy.weight)):
        histogram = found.Histograms(f"{tag}/fc3.weight")[0].histogram_value
        assert histogram.num == values.numel()
        assert (histogram.min, histogram.max) == (values.min().item(), values.max().item())
    assert spy.gradient.abs().max() > 1e-5


def test_non_finite_gradients_are_told_and_do_no_harm(make_classifier: Make, tmp_path: Path) -> None:
    class Poison(Callback):
        def on_after_backward(self, trainer, pl_module) -> None:
            if trainer.is_last_batch:
                pl_module.network.fc3.bias.grad[:2] = float("nan")

    with pytest.warns(UserWarning, match=r"NaN or infinite values at step 2: gradients/fc3\.bias \(2\)\."):
        fit(make_classifier(), tmp_path, [Poison(), WeightAndGradientHistograms()], epochs=1)


def test_kernels_are_drawn_as_they_are(run: tuple[ImageClassifier, Path]) -> None:
    module, folder = run
    image = events(folder).Images("kernels/conv1")[-1]
    picture = decode(image)
    weight = module.network.conv1.weight.detach()
    side, gap = 25, 2  # five pixels of five each
    for output, input_ in ((0, 0), (5, 2), (3, 1)):
        top, left = gap + output * (side + gap), gap + input_ * (side + gap)
        cell = picture[0, top : top + side, left : left + side].reshape(5, 5, 5, 5)[:, 2, :, 2]
        expected = (0.5 + 0.5 * weight[output, input_] / weight.abs().max()) * 255
        np.testing.assert_allclose(cell.numpy(), expected.numpy(), atol=0.51)
    assert picture.shape == (3, gap + 6 * (side + gap), gap + 3 * (side + gap))


def test_feature_maps_stand_beside_the_denormalised_input(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()
    trainer = fit(module, tmp_path, [FeatureMaps(["conv1"], num_images=2, max_channels=6)], epochs=1)
    image = events(tmp_path).Images("feature_maps/conv1")[0]
    picture = decode(image)
    side, gap = 64, 2
    assert picture.shape == (3, gap + 2 * (side + gap), gap + 7 * (side + gap))
    images = next(iter(trainer.val_dataloaders))[0]
    drawn = picture[:, gap : gap + side, gap : gap + side][:, ::2, ::2]
    np.testing.assert_allclose(drawn.numpy(), module.denormalize(images)[0].numpy() * 255, atol=0.51)
    with torch.no_grad():
        channel = module.eval().network.conv1(images)[0, 4]
    drawn = picture[0, gap : gap + side, gap + 5 * (side + gap) :][:, :side]
    bright, dark = channel.flatten().argmax().item(), channel.flatten().argmin().item()
    for position, shade in ((bright, 255), (dark, 0)):
        row, column = position // 28, position % 28
        assert drawn[int((row + 0.5) * 64 / 28), int((column + 0.5) * 64 / 28)] == shade


def test_no_hook_is_left_after_success(run: tuple[ImageClassifier, Path]) -> None:
    assert hooks(run[0]) == 0


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["exception", "interrupt"])
def test_no_hook_is_left_after_an_error_in_mid_batch(
    make_classifier: Make, tmp_path: Path, error: BaseException
) -> None:
    module = make_classifier()
    seen = []

    class Breaks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if callback._handles:
                seen.append(hooks(module))
                raise error
            return x

    callback = FeatureMaps(["conv1", "conv2"])
    module.network.pool2 = nn.Sequential(module.network.pool2, Breaks())
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(module, tmp_path, [callback])
    assert seen == [2]
    assert hooks(module) == 0


def test_no_hook_stands_while_training(make_classifier: Make, tmp_path: Path) -> None:
    counts = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            counts.append(hooks(pl_module))

    fit(make_classifier(), tmp_path, [*all_callbacks(), Count()])
    assert counts == [0] * 6


def test_pattern_without_a_layer_fails_before_training(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"'conv9' of FeatureMaps.*conv1"):
        fit(make_classifier(), tmp_path, [FeatureMaps(["conv9"])])


def test_layer_without_maps_is_named_before_training(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()
    before = module.network.fc3.weight.clone()
    with pytest.raises(MisconfigurationException, match=r"'fc3' of FeatureMaps .* makes \(8, 10\)"):
        fit(module, tmp_path, [FeatureMaps(["fc3"])])
    assert torch.equal(module.network.fc3.weight, before)


def test_layers_are_spread_over_the_depth_by_default(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(network=partial(ResNet, depth=20)), tmp_path, [FeatureMaps()], epochs=1)
    found = events(tmp_path).Tags()["images"]
    assert found == [
        f"feature_maps/{name}" for name in ("stem.0", "stages.0.2.conv2", "stages.1.2.conv2", "stages.2.2.conv2")
    ]


def test_loggers_that_take_no_pictures_are_skipped_with_a_warning(make_classifier: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="FeatureMaps draws for TensorBoard, but the loggers are: CSVLogger"):
        fit(make_classifier(), tmp_path, [FeatureMaps(["conv1"])], epochs=1, logger=CSVLogger(tmp_path))


def test_weights_are_the_same_with_and_without_callbacks(make_classifier: Make, tmp_path: Path) -> None:
    results = []
    for callbacks in ([], all_callbacks()):
        torch.manual_seed(0)
        module = make_classifier()
        fit(module, tmp_path / str(len(callbacks)), callbacks)
        results.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(*results)
