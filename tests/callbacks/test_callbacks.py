"""All callbacks in a real run: what they log, and that they remove their hooks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from watching import all_callbacks, decode, events, fit

from callbacks import FeatureMaps
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet, ResNet

Make = Callable[..., ImageClassifier]


class Noisy(LeNet):
    """A network with random numbers in training, and with running statistics."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.pool1 = nn.Sequential(self.pool1, nn.BatchNorm2d(6), nn.Dropout(0.1))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


class Count(Callback):
    """Count the hooks of the network after each training step."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        self.counts.append(hooks(pl_module))


@pytest.fixture(scope="module")
def run(make_classifier: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageClassifier, Path, Count]:
    module, folder, count = make_classifier(), tmp_path_factory.mktemp("run"), Count()
    fit(module, folder, [*all_callbacks(every_n_epochs=2), count], epochs=3)
    return module, folder, count


def test_every_documented_tag_is_written_every_nth_and_the_last_epoch(run: tuple[ImageClassifier, Path, Count]) -> None:
    module, folder, _ = run
    reader = events(folder)
    tags = reader.Tags()
    names = [name for name, _ in module.network.named_parameters()]
    layers = ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert set(tags["histograms"]) == {
        *(f"{kind}/{name}" for kind in ("weights", "gradients", "updates") for name in names),
        *(f"activations/{layer}" for layer in layers),
        *("confidence/right", "confidence/wrong"),
    }
    each_epoch = {
        *(f"{kind}/{layer}" for kind in ("kernels", "kernels_split") for layer in ("conv1", "conv2")),
        *("kernels_colour/conv1", "grad_cam/conv2", "occlusion", "mistakes/val", "roc/val", "gradient_flow"),
        *(f"feature_maps/{layer}" for layer in ("conv1", "conv2", "pool1")),
        *("confusion_matrix/val", "confusion_matrix_normalised/val"),
    }
    assert set(tags["images"]) == each_epoch | {"training_batch", "kernels_video/conv1"}
    for tag in each_epoch - {"gradient_flow"}:
        assert [event.step for event in reader.Images(tag)] == [6, 9], tag
    assert [event.step for event in reader.Images("training_batch")] == [0, 3, 6]
    assert [event.step for event in reader.Images("kernels_video/conv1")] == [9]
    for tag in ("gradient_flow", *(tag for tag in tags["histograms"] if tag.split("/")[0] in ("weights", "updates"))):
        steps = reader.Images(tag) if tag == "gradient_flow" else reader.Histograms(tag)
        assert [event.step for event in steps] == [5, 8], tag  # after the middle step of each epoch
    assert set(tags["tensors"]) == {"class_report/val/text_summary", "custom_scalars__config__"} | {
        f"pr/{name}" for name in (*module.class_names, "right_or_wrong")
    }
    times = {"time/train_seconds", "time/val_seconds", "time/images_per_second"}
    assert times | {"hp/val/loss", "hp/epochs"} <= set(tags["scalars"])
    assert tags["graph"]
    assert len(list(folder.rglob("*tfevents*"))) == 1
    files = {"confusion_matrix_val.csv", "class_report_val.csv", "mistakes_val.csv"}
    assert files <= {path.name for path in folder.iterdir()}


def test_kernels_are_drawn_unchanged(run: tuple[ImageClassifier, Path, Count]) -> None:
    module, folder, _ = run
    image = events(folder).Images("kernels/conv1")[-1]
    picture = decode(image)
    weight = module.network.conv1.weight.detach()
    side, gap = 25, 2  # five pixels, enlarged five times
    for output, input_ in ((0, 0), (5, 2), (3, 1)):
        top, left = gap + output * (side + gap), gap + input_ * (side + gap)
        cell = picture[0, top : top + side, left : left + side].reshape(5, 5, 5, 5)[:, 2, :, 2]
        expected = (0.5 + 0.5 * weight[output, input_] / weight.abs().max()) * 255
        np.testing.assert_allclose(cell.numpy(), expected.numpy(), atol=0.51)
    height, width = gap + 6 * (side + gap), gap + 3 * (side + gap)
    assert (picture[:, :height, width:] == 255).all()  # the caption below is wider
    assert (picture[:, height:] < 128).any()


def test_feature_maps_are_next_to_the_denormalised_input(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()
    trainer = fit(module, tmp_path, [FeatureMaps(["conv1"], max_channels=6, images=[0, 5])], epochs=1)
    picture = decode(events(tmp_path).Images("feature_maps/conv1")[0])
    side, gap = 64, 2
    assert picture.shape[2] == gap + 7 * (side + gap)
    images = next(iter(trainer.val_dataloaders))[0]
    drawn = picture[:, gap : gap + side, gap : gap + side][:, ::2, ::2]
    np.testing.assert_allclose(drawn.numpy(), module.denormalize(images)[0].numpy() * 255, atol=0.51)
    with torch.no_grad():
        channel = module.eval().network.conv1(images)[5, 4]
    top, left = gap + 2 * (side + gap), gap + 5 * (side + gap)  # the first image has two rows
    maps, active = (picture[0, start : start + side, left : left + side] for start in (top, top + side + gap))
    for position, shade in ((channel.argmax(), 255), (channel.argmin(), 0)):
        row, column = (int((index + 0.5) * 64 / 28) for index in divmod(position.item(), 28))
        assert maps[row, column] == shade
    assert (channel < 0)[14, 14].item() == (active[33, 33] == 0).item()  # after the activation


def test_no_hook_is_registered_during_training_or_left_after_it(run: tuple[ImageClassifier, Path, Count]) -> None:
    module, _, count = run
    assert count.counts == [0] * 9
    assert hooks(module) == 0


def test_no_hook_is_left_after_an_error_within_a_layer(make_classifier: Make, tmp_path: Path) -> None:
    module, seen = make_classifier(), []

    class Breaks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if hooks(module):
                seen.append(hooks(module))
                raise RuntimeError("broken")
            return x

    module.network.pool2 = nn.Sequential(module.network.pool2, Breaks())
    with pytest.raises(RuntimeError, match="broken"):
        fit(module, tmp_path, [FeatureMaps(["conv1", "conv2"])])
    assert seen == [2]
    assert hooks(module) == 0


def test_layer_that_cannot_be_drawn_is_named_before_training(make_classifier: Make, tmp_path: Path) -> None:
    module = make_classifier()
    before = module.network.fc3.weight.clone()
    with pytest.raises(MisconfigurationException, match=r"'fc3' returns \(4, 10\)"):
        fit(module, tmp_path, [FeatureMaps(["fc3"])])
    assert torch.equal(module.network.fc3.weight, before)


def test_layers_are_spread_over_the_depth_by_default(make_classifier: Make, tmp_path: Path) -> None:
    fit(make_classifier(network=partial(ResNet, depth=20)), tmp_path, [FeatureMaps()], epochs=1)
    reader = events(tmp_path).Tags()["images"]
    assert reader == [
        f"feature_maps/{name}" for name in ("stem.0", "stages.0.2.conv2", "stages.1.2.conv2", "stages.2.2.conv2")
    ]


def test_weights_are_the_same_with_and_without_callbacks(make_classifier: Make, tmp_path: Path) -> None:
    results = []
    for callbacks in ([], all_callbacks()):
        torch.manual_seed(0)
        module = make_classifier(network=Noisy)
        fit(module, tmp_path / str(len(callbacks)), callbacks)
        results.append(torch.cat([tensor.flatten().float() for tensor in module.state_dict().values()]))
    assert torch.equal(*results)


class Operations(TorchDispatchMode):
    """Record the operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_nothing_is_computed_on_other_steps(make_classifier: Make, tmp_path: Path) -> None:
    operations = Operations()
    hooks_between = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
    hooks_between += ("on_validation_batch_start", "on_validation_batch_end", "on_validation_epoch_end")
    calls: list[str] = []

    def hook(name: str, method: str) -> Callable[..., None]:
        def run(self: Callback, trainer: Trainer, *args: object) -> None:
            if trainer.current_epoch == 1 and not trainer.sanity_checking:  # neither the first nor the last
                calls.append(name)
                getattr(operations, method)(*([None] * 3 if method == "__exit__" else []))

        return run

    first = type("First", (Callback,), {name: hook(name, "__enter__") for name in hooks_between})()
    last = type("Last", (Callback,), {name: hook(name, "__exit__") for name in hooks_between})()
    watching = all_callbacks(every_n_epochs=100)
    fit(make_classifier(), tmp_path, [first, *watching, last], epochs=3)
    assert set(calls) == set(hooks_between)
    assert operations.seen == []
