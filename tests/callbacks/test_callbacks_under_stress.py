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
    names = [f"class {i}" for i in range(classes)]
    module = make_classifier(class_names=names)
    images = torch.randn(16, 3, 32, 32)
    targets = torch.arange(16) % 2 * (classes - 1)
    trainer = fit(module, tmp_path, all_callbacks(), epochs=1, data=(images, targets))
    assert trainer.global_step == 2
    for tag in events(tmp_path).Tags()["images"]:
        _, height, width = decode(events(tmp_path).Images(tag)[0]).shape
        assert max(height, width) <= 2000, tag


def test_layers_of_any_size_are_drawn_within_limits(make_classifier: Make, tmp_path: Path) -> None:
    class Extreme(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.large = nn.Conv2d(3, 300, 9, padding=4)
            self.wide = nn.Conv2d(300, 40, 1)
            self.tiny = nn.Conv2d(40, 1, 1)
            self.fc = nn.Linear(1, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.tiny(self.wide(self.large(images).relu()).relu())
            return self.fc(maps.mean((2, 3)))

    kernels = ConvolutionKernels(max_outputs=8, max_inputs=4)
    maps = FeatureMaps(["large", "wide", "tiny"], images=2, max_channels=5)
    fit(make_classifier(network=Extreme), tmp_path, [kernels, maps], epochs=1)
    reader = events(tmp_path)
    shapes = {tag: tuple(decode(reader.Images(tag)[0]).shape[1:]) for tag in reader.Tags()["images"]}
    gap, caption = 2, 20
    assert shapes["kernels/large"][1] == 260  # the caption is wider than three cells of 27 pixels
    assert shapes["kernels/large"][0] >= 8 * (27 + gap) + gap + caption
    assert shapes["kernels/large"][0] < 9 * (27 + gap) + 5 * caption
    assert shapes["feature_maps/large"][1] == gap + 6 * (64 + gap)
    assert "feature_maps/tiny" in shapes
    assert "kernels_colour/wide" not in shapes


def test_network_whose_weights_are_not_finite_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()

    class Poison(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            with torch.no_grad():
                pl_module.network.conv1.weight[0] = torch.nan
                pl_module.network.fc3.weight[1] = torch.inf

    with pytest.warns(UserWarning, match="NaN or infinite values at step"):
        trainer = fit(module, tmp_path, [Poison(), *all_callbacks()])
    assert trainer.global_step == 6
    reader = events(tmp_path)
    assert len(reader.Images("confusion_matrix/val")) == 2
    assert len(reader.Histograms("weights/conv2.weight")) == 1  # in the second epoch, no value is finite


GREY = torch.randn(16, 1, 32, 32).expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16-mixed", "accumulate_grad_batches": 2},
        pytest.param({"data": (GREY, torch.arange(16) % 10)}, marks=pytest.mark.slow),
    ],
    ids=["precision and accumulation", "grey images"],
)
def test_other_ways_to_train_are_drawn(make_classifier: Make, tmp_path: Path, options: dict[str, Any]) -> None:
    fit(make_classifier(), tmp_path, all_callbacks(), epochs=1, **options)
    assert len(events(tmp_path).Images("grad_cam/conv2")) == 1


def test_network_without_convolutions_is_drawn(make_classifier: Make, tmp_path: Path) -> None:
    watching = [FeatureMaps(), *(callback for callback in all_callbacks() if not isinstance(callback, FeatureMaps))]
    fit(make_classifier(network=MLP), tmp_path, watching, epochs=1)
    tags = events(tmp_path).Tags()["images"]
    assert "confusion_matrix/val" in tags
    assert not [tag for tag in tags if tag.startswith(("kernels", "feature_maps", "grad_cam"))]


def test_in_place_activations_do_not_change_earlier_outputs() -> None:
    outputs, network = Outputs(max_channels=6), LeNet(10)
    images = torch.randn(2, 3, 32, 32)
    with hooked({"conv1": network.conv1}, outputs.keep), outputs, torch.no_grad():
        nn.functional.relu_(network.conv1(images))
    with torch.no_grad():
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
        assert [event.step for event in reader.Images(tag)] == [3, 6, 9, 12]
    assert [event.step for event in reader.Histograms("weights/conv1.weight")] == [2, 5, 8, 11]
    first, whole = (_frames(event.encoded_image_string) for event in reader.Images("kernels_video/conv1"))
    assert (first, whole) == (2, 4)


def _frames(gif: bytes) -> int:
    return Image.open(io.BytesIO(gif)).n_frames
