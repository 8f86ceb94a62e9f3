"""All callbacks at once in unusual training: none may crash, and drawing errors must not go unnoticed."""

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor, nn
from watching import all_callbacks, decode, events, fit

from callbacks import ConfusionMatrix, ConvolutionKernels, FeatureMaps, GradCAM, Histograms
from callbacks.feature_maps import Outputs
from callbacks.tools.layers import hooked
from lightning_modules import ImageClassifier
from lightning_modules.networks import MLP, LeNet

Make = Callable[..., ImageClassifier]


@pytest.fixture(autouse=True)
def _all_is_drawn() -> Iterator[None]:
    """Fail if anything could not be drawn."""
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        yield
    assert [each.message for each in recorded if "could not draw" in str(each.message)] == []


@pytest.mark.parametrize("classes", [2, pytest.param(1000, marks=pytest.mark.slow)])
def test_few_and_many_classes_are_drawn(make_classifier: Make, tmp_path: Path, classes: int) -> None:
    module = make_classifier(class_names=[f"class {i}" for i in range(classes)])
    targets = torch.arange(16) % 2 * (classes - 1)
    fit(module, tmp_path, all_callbacks(), epochs=1, data=(torch.randn(16, 3, 32, 32), targets))
    reader = events(tmp_path)
    sizes = {tag: max(decode(reader.Images(tag)[0]).shape) for tag in reader.Tags()["images"]}
    assert "confusion_matrix/val" in sizes
    assert max(sizes.values()) <= 2000


def test_layers_of_any_size_are_drawn_within_limits(make_classifier: Make, tmp_path: Path) -> None:
    class Extreme(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.large = nn.Conv2d(3, 300, 9, padding=4)
            self.wide = nn.Conv2d(300, 40, 1)
            self.tiny = nn.Conv2d(40, 1, 1)
            self.fc = nn.Linear(1, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.tiny(self.wide(self.large(images).relu()).relu()).mean((2, 3)))

    maps = FeatureMaps(["large", "wide", "tiny"], images=2, max_channels=5)
    fit(make_classifier(network=Extreme), tmp_path, [ConvolutionKernels(max_channels=8), maps], epochs=1)
    reader = events(tmp_path)
    shapes = {tag: tuple(decode(reader.Images(tag)[0]).shape[1:]) for tag in reader.Tags()["images"]}
    gap, caption = 2, 20
    assert shapes["kernels/large"][1] == 260  # the caption is wider than three cells of 27 pixels
    assert 8 * (27 + gap) + gap + caption <= shapes["kernels/large"][0] < 9 * (27 + gap) + 5 * caption
    assert shapes["feature_maps/large"][1] == gap + 6 * (64 + gap)
    assert "feature_maps/tiny" in shapes
    assert "kernels_colour/wide" not in shapes


def test_network_whose_weights_are_not_finite_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    class Poison(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            with torch.no_grad():
                pl_module.network.conv1.weight[0] = torch.nan
                pl_module.network.fc3.weight[1] = torch.inf

    with pytest.warns(UserWarning, match="NaN or infinite values at step"):
        fit(make_classifier(), tmp_path, [Poison(), *all_callbacks()])
    reader = events(tmp_path)
    assert len(reader.Images("confusion_matrix/val")) == 2
    assert len(reader.Histograms("weights/conv2.weight")) == 1  # in the second epoch, no value is finite


def test_training_in_half_precision_with_accumulation_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(), tmp_path, all_callbacks(), epochs=1, precision="bf16-mixed", accumulate_grad_batches=2)
    assert len(events(tmp_path).Images("grad_cam/conv2")) == 1


def test_network_without_convolutions_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    watching = [FeatureMaps(), *(callback for callback in all_callbacks() if not isinstance(callback, FeatureMaps))]
    with pytest.warns(UserWarning, match="GradCAM logs nothing, because the network has no layer for it"):
        fit(make_classifier(network=MLP), tmp_path, watching, epochs=1)
    tags = events(tmp_path).Tags()["images"]
    assert "confusion_matrix/val" in tags
    assert not [tag for tag in tags if tag.startswith(("kernels", "feature_maps", "grad_cam"))]


def test_in_place_activations_do_not_change_earlier_outputs() -> None:
    outputs, network = Outputs(Tensor.clone, lambda function, output: output), LeNet(10)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        with hooked({"conv1": network.conv1}, outputs.keep), outputs:
            nn.functional.relu_(network.conv1(images))
        before = network.conv1(images)
    assert torch.equal(outputs.before["conv1"], before)
    assert torch.equal(outputs.after["conv1"], before.relu())


def test_resumed_run_continues_at_its_epoch(make_classifier: Make, tmp_path: Path) -> None:
    for epochs, checkpoint in ((2, None), (4, tmp_path / "last.ckpt")):
        watching = [ConfusionMatrix(), ConvolutionKernels(every_n_epochs=1), GradCAM(), Histograms()]
        watching.append(ModelCheckpoint(tmp_path, save_last=True))
        fit(make_classifier(), tmp_path, watching, epochs, enable_checkpointing=True, ckpt_path=checkpoint)
    reader = events(tmp_path)
    for tag in ("confusion_matrix/val", "kernels/conv1", "grad_cam/conv2"):
        steps = [3, 6, 9, 12] if tag == "kernels/conv1" else [3, 6, 12]  # epochs 1, 2 and 4
        assert [event.step for event in reader.Images(tag)] == steps
    assert [event.step for event in reader.Histograms("weights/conv1.weight")] == [2, 5, 11]
    videos = reader.Images("kernels_video/conv1")
    assert [Image.open(io.BytesIO(event.encoded_image_string)).n_frames for event in videos] == [2, 4]
