import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau, StepLR
from training import batches, module_of, trainer_of

from lightning_modules import ImageClassifier, ParamGroup
from lightning_modules.networks import LeNet
from lightning_modules.optim.schedules import OneCycle, ProgressLR, Triangle, WarmupCosine

Make = Callable[..., ImageClassifier]
STEPS = 4  # per epoch


class FrozenBias(LeNet):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.fc3.bias.requires_grad_(False)


def half(epoch: int) -> float:
    return 0.5**epoch


def root(progress: float) -> float:
    return math.sqrt(1 - progress)


def classifier(yaml: str) -> Any:
    """Return the classifier of a YAML config that the parser has written and read again."""
    yaml = yaml.replace("our.", "lightning_modules.optim.").replace("torchs.", "torch.optim.lr_scheduler.")
    yaml = f"{yaml.replace('my.', f'{__name__}.')}\noptimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.1}}}}"
    return module_of("ImageClassifier", yaml, repeat=True)


class TraceLr(Callback):
    """Record each group's lr in every step, and the layers with gradients."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []
        self.logged: dict[str, float] = {}
        self.lrs: dict[str, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.logged = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}

    def on_before_optimizer_step(self, trainer: Trainer, module: ImageClassifier, optimizer: Any) -> None:
        parameters = module.network.named_parameters()
        self.trained.append({name.split(".")[0] for name, parameter in parameters if parameter.grad is not None})
        lrs = {group["name"]: group["lr"] for group in optimizer.param_groups}
        for name, lr in lrs.items():
            self.lrs.setdefault(name, []).append(lr)
        assert lrs == self.logged  # LearningRateMonitor logs the rate that the step uses


def lrs_of(module: ImageClassifier, epochs: int, *callbacks: Callback, **options: Any) -> dict[str, list[float]]:
    """Train, and return the learning rates of each group in each step."""
    trace = TraceLr()
    trainer_of(epochs, *callbacks, trace, **options).fit(module, batches(classes=3), batches(1, classes=3))
    return trace.lrs


def by_epoch(*values: Any) -> list[Any]:
    return [value for value in values for _ in range(STEPS)]


def triangle(step: float, steps: int, start: float, peak_at: float, end: float) -> float:
    """Return the factor of a triangle by linear interpolation between its three points."""
    progress = step / steps
    if progress < peak_at:
        return start + (1.0 - start) * progress / peak_at
    return 1.0 - (1.0 - end) * (progress - peak_at) / (1.0 - peak_at)


PLATEAU = "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: "


@pytest.mark.parametrize(
    ("yaml", "epochs", "expected"),
    [
        ("{class_path: torchs.StepLR, init_args: {step_size: 2, gamma: 0.1}}", 3, by_epoch(0.1, 0.1, 0.01)),
        ("{class_path: torchs.StepLR, init_args: {step_size: 1}}\nlr_interval: step", 1, [0.1, 0.01, 0.001, 0.0001]),
        ("{class_path: torchs.LambdaLR, init_args: {lr_lambda: my.half}}", 3, by_epoch(0.1, 0.05, 0.025)),
        (
            "{class_path: our.ProgressLR, init_args: {shape: {class_path: our.Triangle, init_args: "
            "{start: 0.2, peak_at: 0.23, end: 0.07}}}}",
            5,
            [0.1 * triangle(step, 20, 0.2, 0.23, 0.07) for step in range(20)],
        ),
        (
            "{class_path: our.ProgressLR, init_args: {shape: {class_path: our.WarmupCosine, init_args: "
            "{warmup: 0.2, end: 0.1}}}}",
            5,
            [0.1 * step / 4 for step in range(4)]
            + [0.1 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 16)) / 2) for step in range(16)],
        ),
        (
            "{class_path: our.OneCycle, init_args: {anneal_strategy: linear, pct_start: 0.5, cycle_momentum: false}}",
            3,  # steps 0 to 11: up to step 5, down to step 11
            [0.004 + (0.1 - 0.004) * step / 5 for step in range(6)]
            + [0.1 + (0.004 / 1e4 - 0.1) * step / 6 for step in range(1, 7)],
        ),
        # no value is better by 1e9, so the rate is reduced after each epoch
        (
            "{class_path: torchs.ReduceLROnPlateau, init_args: {patience: 0, threshold: 1.0e+9}}",
            3,
            by_epoch(0.1, 0.01, 0.001),
        ),
        (
            PLATEAU + "{monitor: train/acc, mode: max, patience: 0, threshold: 1.0e+9, factor: 0.5}}",
            3,
            by_epoch(0.1, 0.1, 0.05),  # the first value always counts as better
        ),
        (PLATEAU + "{monitor: val/loss, patience: 0, threshold: -1.0e+9}}", 3, by_epoch(0.1, 0.1, 0.1)),
    ],
)
def test_every_schedule_follows_its_closed_form_from_yaml(yaml: str, epochs: int, expected: list[float]) -> None:
    assert lrs_of(classifier(f"lr_scheduler: {yaml}"), epochs)["default"] == pytest.approx(expected)


def test_plateau_is_stepped_in_epochs_with_a_validation(make_classifier: Make) -> None:
    module = make_classifier(lr_scheduler=partial(ReduceLROnPlateau, patience=0, threshold=9))
    lrs = lrs_of(module, 5, check_val_every_n_epoch=2)
    assert lrs["default"] == pytest.approx(by_epoch(0.1, 0.1, 0.01, 0.01, 0.001))


MAIN = {
    "none": None,
    "OneCycle": partial(OneCycle, cycle_momentum=False),
    "StepLR": partial(StepLR, step_size=1, gamma=0.1),
    "shape": partial(ProgressLR, shape=Triangle(1, 0, 0)),
    "plateau": partial(ReduceLROnPlateau, patience=0, threshold=1e9),
}


@pytest.mark.parametrize("main", MAIN)
def test_a_groups_own_schedule_works_with_any_other(make_classifier: Make, main: str) -> None:
    plain = lrs_of(make_classifier(lr_scheduler=MAIN[main]), 4)
    rules = [ParamGroup("conv1.bias", lr=0.7, schedule=Triangle(1, 0, 0, until=3 / 8))]
    lrs = lrs_of(make_classifier(lr_scheduler=MAIN[main], param_groups=rules), 4)
    assert lrs["conv1.bias"] == pytest.approx([0.7 * max(1 - step / 6, 0) for step in range(16)])
    assert lrs["default"] == pytest.approx(plain["default"])


@pytest.mark.parametrize(
    ("cycle", "peaks"),
    [
        (partial(CyclicLR, base_lr=0.01, max_lr=0.3, step_size_up=4, cycle_momentum=False), (0.3, 3)),
        (partial(OneCycleLR, max_lr=[0.4, 0.2], cycle_momentum=False), (0.2, 0.4)),
        (partial(OneCycle, cycle_momentum=False), (0.1, 1)),
    ],
)
def test_a_cycle_keeps_the_proportions_of_the_groups_or_has_their_own_peaks(
    make_classifier: Make, cycle: partial, peaks: tuple[float, float]
) -> None:
    module = make_classifier(lr_scheduler=cycle, param_groups=[ParamGroup("fc3.*", lr_scale=10)])
    lrs = lrs_of(module, 5)
    assert (max(lrs["default"]), max(lrs["fc3"])) == pytest.approx(peaks, rel=0.01)
    assert lrs["fc3"] == pytest.approx([peaks[1] / peaks[0] * lr for lr in lrs["default"]])


def test_one_cycle_by_epoch_spans_the_epochs(make_classifier: Make) -> None:
    lrs = lrs_of(make_classifier(lr_scheduler=partial(OneCycleLR, max_lr=0.3), lr_interval="epoch"), 5)
    assert max(lrs["default"]) > 0.25


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_all_learning_rates_are_scaled_by_the_number_of_devices_or_its_root(
    make_classifier: Make, scale: str, factor: float
) -> None:
    rules = [ParamGroup("fc3.*", lr=0.5), ParamGroup("fc2.*", schedule=Triangle())]
    cycle = partial(OneCycleLR, max_lr=0.3, cycle_momentum=False)
    module = make_classifier(param_groups=rules, scale_lr=scale, lr_scheduler=cycle)
    module.trainer = trainer_of(-1, devices=4, strategy="ddp", max_steps=10)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["max_lr"] for group in groups] == pytest.approx([factor * 1.5, factor * 0.3, factor * 0.3])
    assert [group.lr for group in module.groups] == pytest.approx([factor * 0.5, factor * 0.1, factor * 0.1])


def test_a_group_has_its_own_schedule_from_yaml() -> None:
    yaml = """
network: my.FrozenBias
param_groups:
  - pattern: fc3.*
    schedule: {class_path: our.Triangle, init_args: {start: 0.5, peak_at: 0.5, end: 0.1}}
  - {pattern: fc2.*, schedule: my.root}
"""
    lrs = lrs_of(classifier(yaml), 2)
    assert lrs["fc3"] == pytest.approx([0.1 * triangle(step, 8, 0.5, 0.5, 0.1) for step in range(8)])
    assert lrs["fc2"] == pytest.approx([0.1 * math.sqrt(1 - step / 8) for step in range(8)])
    assert lrs["default"] == [0.1] * 8


@pytest.mark.parametrize("main", ["none", "OneCycle"])
def test_a_resumed_training_continues_its_schedules(make_classifier: Make, main: str, tmp_path: Path) -> None:
    options = {
        "lr_scheduler": MAIN[main],
        "param_groups": [ParamGroup("fc3.*", schedule=Triangle(0.2, 0.4, 0)), ParamGroup("conv1.*", unfreeze_epoch=1)],
    }
    whole = lrs_of(make_classifier(**options), 3)
    moments = {  # within the first epoch, at its end in four ways, within the second
        3: {"every_n_train_steps": 3},
        4: {"every_n_train_steps": 4},
        4.1: {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        4.2: {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        6: {"every_n_train_steps": 6},
    }
    for moment, when in moments.items():
        folder, step = tmp_path / str(moment), int(moment)
        save = ModelCheckpoint(folder, "{step}", save_top_k=-1, **when)
        trainer_of(3, save, enable_checkpointing=True).fit(make_classifier(**options), batches(), batches(1))
        trace = TraceLr()
        file = str(folder / f"step={step}.ckpt")
        resumed = make_classifier(**options)
        trainer_of(3, trace).fit(resumed, batches(), batches(1), ckpt_path=file, weights_only=False)
        assert ["conv1" in layers for layers in trace.trained] == [i >= STEPS for i in range(step, 3 * STEPS)]
        for name, lrs in whole.items():
            assert trace.lrs[name] == pytest.approx(lrs[step:]), (name, moment)


def test_accumulated_batches_are_one_step_of_a_schedule(make_classifier: Make) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle())]
    module = make_classifier(lr_scheduler=partial(ProgressLR, shape=Triangle()), param_groups=rules)
    lrs = lrs_of(module, 2, accumulate_grad_batches=2, limit_train_batches=3)
    assert lrs["default"] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert lrs["fc3"] == pytest.approx([0.1, 0.1 * 4 / 6, 0.1 * 3 / 6, 0.1 / 6])  # in images rather than steps


def test_steps_may_limit_a_training_instead_of_epochs(make_classifier: Make) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle())]
    for epochs in (-1, 9):
        lrs = lrs_of(make_classifier(param_groups=rules), epochs, max_steps=5)
        assert lrs["fc3"] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])


@pytest.mark.parametrize(
    "options", [{"lr_scheduler": MAIN["shape"]}, {"param_groups": [ParamGroup("fc3.*", schedule=Triangle())]}]
)
def test_a_schedule_over_a_training_without_an_end_is_rejected(make_classifier: Make, options: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationException, match="Expected a known length of training"):
        lrs_of(make_classifier(**options), -1)


@pytest.mark.parametrize("make", [lambda: Triangle(peak_at=0.5, until=0.5), lambda: WarmupCosine(warmup=1.0)])
def test_an_invalid_shape_is_rejected(make: Callable[[], Any]) -> None:
    with pytest.raises(MisconfigurationException, match="Expected 0 <= "):
        make()


def test_layers_stay_frozen_until_their_epoch_or_for_good(make_classifier: Make) -> None:
    rules = [
        ParamGroup("conv1.*", freeze=True),
        ParamGroup("conv2*", unfreeze_epoch=2, lr=0.5),
        ParamGroup("fc1.*", unfreeze_epoch=1),
    ]
    module = make_classifier(
        param_groups=rules, lr_scheduler=OneCycle, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    lrs_of(module, 3)  # a second fit of the module starts like the first
    trace = TraceLr()
    trainer_of(3, trace).fit(module, batches(), batches(1))
    early = {"fc2", "fc3"}
    assert trace.trained == by_epoch(early, early | {"fc1"}, early | {"fc1", "conv2"})
    assert max(trace.lrs["conv2"]) == pytest.approx(0.5, rel=0.01)


def test_layers_that_unfreeze_later_are_rejected_on_several_devices(make_classifier: Make) -> None:
    module = make_classifier(param_groups=[ParamGroup("conv*", unfreeze_epoch=2)])
    module.trainer = trainer_of(1, devices=2, strategy="ddp")
    with pytest.raises(MisconfigurationException, match=r"one device for unfreeze_epoch.*but got 2"):
        module.configure_optimizers()
