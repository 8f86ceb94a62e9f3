"""Statistics of the middle step of an epoch in several kinds of training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from watching import events, fit

import callbacks.tools.histogram
from callbacks import GradientFlow, Histograms
from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.gradient_flow import AXIS, HEIGHT, draw_gradient_flow, magnitudes
from lightning_modules import ImageClassifier, ParamGroup

Make = Callable[..., ImageClassifier]


class Keep(StepCallback):
    """Record all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def draw(self, log: LogSnapshot, step: Step) -> None:
        self.steps.append(step)


class Raw(Callback):
    """Record the gradients of every step before the optimizer step."""

    def __init__(self) -> None:
        self.sums: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.sums.append(pl_module.network.fc3.weight.grad.double().square().sum().item())


def test_all_callbacks_share_one_collection(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    gather = callbacks.tools.histogram.gather
    monkeypatch.setattr("callbacks.tools.histogram.gather", lambda tensors: counted.append(1) or gather(tensors))
    keep, other = Keep(), Keep()
    fit(make_classifier(), tmp_path, [keep, Histograms(), GradientFlow(), other], epochs=2)
    assert len(counted) == 6  # weights, gradients and updates, in two epochs
    assert keep.steps[0] is other.steps[0]
    assert [step.number for step in keep.steps] == [1, 4]


def test_updates_are_what_the_step_changed(make_classifier: Make, tmp_path: Path) -> None:
    keep, module = Keep(), make_classifier()
    fit(module, tmp_path, [keep], epochs=1)
    (step,) = keep.steps
    for name, gradient in step.gradients().items():  # SGD without momentum: lr 0.1, weight decay 0.01
        bound = 0.1 * (gradient.rms + 0.01 * step.weights()[name].rms)
        assert 0 < step.updates()[name].rms <= bound * 1.0001


def test_frozen_parameters_have_only_weights(make_classifier: Make, tmp_path: Path) -> None:
    keep = Keep()
    module = make_classifier(param_groups=[ParamGroup(pattern="conv1.*", freeze=True)])
    fit(module, tmp_path, [keep, Histograms(), GradientFlow()], epochs=1)
    (step,) = keep.steps
    names = {name for name, _ in module.network.named_parameters()}
    assert set(step.weights()) == set(step.dimensions) == names
    assert set(step.gradients()) == set(step.updates()) == names - {"conv1.weight", "conv1.bias"}
    assert "gradients/conv1.weight" not in events(tmp_path).Tags()["histograms"]


def test_gradients_are_those_of_all_accumulated_batches_before_clipping(make_classifier: Make, tmp_path: Path) -> None:
    keep, raw = Keep(), Raw()
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 1e-6}
    fit(make_classifier(), tmp_path, [keep, raw], epochs=1, **options)
    assert len(raw.sums) == 2
    assert keep.steps[0].gradients()["fc3.weight"].sum_squares == pytest.approx(raw.sums[0], rel=1e-5)
    assert keep.steps[0].number == 0


def test_gradients_of_half_precision_are_unscaled(make_classifier: Make, tmp_path: Path) -> None:
    half, full = Keep(), Keep()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    fit(make_classifier(), tmp_path / "half", [half], 1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    fit(make_classifier(), tmp_path / "full", [full], epochs=1)
    sizes = [keep.steps[0].gradients()["fc3.weight"].rms for keep in (half, full)]
    assert 0.1 < sizes[0] / sizes[1] < 10  # other weights; scaled gradients would be 1,024 times as large


def test_an_epoch_shortened_by_max_steps_is_recorded(make_classifier: Make, tmp_path: Path) -> None:
    keep = Keep()
    fit(make_classifier(), tmp_path, [keep], epochs=-1, max_steps=1)
    assert [step.number for step in keep.steps] == [0]


def test_the_rest_of_an_epoch_within_which_a_run_resumes_is_recorded(make_classifier: Make, tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(make_classifier(), tmp_path, [save], epochs=1, enable_checkpointing=True)
    keep = Keep()
    fit(make_classifier(), tmp_path, [keep], ckpt_path=tmp_path / "step=1.ckpt")
    assert [step.number for step in keep.steps] == [1, 4]


def test_a_network_without_gradients_is_recorded(make_classifier: Make, tmp_path: Path) -> None:
    keep = Keep()

    class Forget(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.zero_grad()

    fit(make_classifier(), tmp_path, [keep, Forget(), Histograms()], epochs=1)
    assert keep.steps[0].gradients() == keep.steps[0].updates() == {}


def test_picture_has_a_bar_for_each_layer_and_none_for_what_is_not_finite(
    make_classifier: Make, tmp_path: Path
) -> None:
    class Poison(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.network.fc3.weight.grad.fill_(torch.nan)
            pl_module.network.fc2.weight.grad.zero_()

    keep = Keep()
    fit(make_classifier(), tmp_path, [keep, Poison()], epochs=-1, max_steps=1)
    names, gradients, ratios = magnitudes(keep.steps[0])
    assert names == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [0 < value < math.inf for value in gradients] == [True, True, True, False, False]
    above = draw_gradient_flow(names, gradients, ratios)[:, :HEIGHT]
    blue = (above == torch.tensor([0x1F, 0x77, 0xB4])[:, None, None]).all(0).any(0)
    bars = blue[AXIS:].view(5, -1).float().mean(1)  # share of the width of each layer
    assert (bars > 0.5).tolist() == [True, True, True, False, False]


def test_picture_without_any_value_is_drawn() -> None:
    assert draw_gradient_flow(["a", "b"], [0.0, math.nan], [math.inf, 0.0]).shape[0] == 3
