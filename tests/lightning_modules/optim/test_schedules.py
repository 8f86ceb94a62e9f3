import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset
from training import module_of

from lightning_modules import ImageClassifier, ParamGroup
from lightning_modules.optim.schedules import OneCycle, ProgressLR, Triangle, WarmupCosine

Make = Callable[..., ImageClassifier]
STEPS = 4  # per epoch


def half(epoch: int) -> float:
    return 0.5**epoch


def tenth(epoch: int) -> float:
    return 0.1**epoch


def root(progress: float) -> float:
    return math.sqrt(1 - progress)


def classifier(yaml: str, repeat: bool = False) -> Any:
    """Return the classifier of a YAML config."""
    yaml = yaml.replace("our.", "lightning_modules.optim.").replace("torchs.", "torch.optim.lr_scheduler.")
    yaml = f"{yaml.replace('my.', f'{__name__}.')}\noptimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.1}}}}"
    return module_of("ImageClassifier", yaml, repeat)


class TraceLr(Callback):
    """Record each group's lr in every step, and whether the first layer is frozen."""

    def __init__(self) -> None:
        self.frozen: list[bool] = []
        self.logged: dict[str, float] = {}
        self.lrs: dict[str, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.logged = {group.get("name", "added"): group["lr"] for group in trainer.optimizers[0].param_groups}

    def on_before_optimizer_step(self, trainer: Trainer, module: ImageClassifier, optimizer: Any) -> None:
        self.frozen.append(not module.network.conv1.weight.requires_grad)
        lrs = {group.get("name", "added"): group["lr"] for group in optimizer.param_groups}
        for name, lr in lrs.items():
            self.lrs.setdefault(name, []).append(lr)
        assert lrs == self.logged  # LearningRateMonitor logs the rate that the step uses


def trainer_of(epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks], **(quiet | options))


def batches(count: int = STEPS, size: int = 4) -> DataLoader:
    images = torch.randn(count * size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(count * size) % 3), size)


def lrs_of(module: ImageClassifier, epochs: int, *callbacks: Callback, **options: Any) -> dict[str, list[float]]:
    """Train, and return the learning rates of each group in each step."""
    trace = TraceLr()
    trainer_of(epochs, *callbacks, trace, **options).fit(module, batches(), batches(1))
    return trace.lrs


def by_epoch(*lrs: float) -> list[float]:
    return [lr for lr in lrs for _ in range(STEPS)]


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
        (
            "{class_path: torchs.StepLR, init_args: {step_size: 1}}\nlr_interval: step",
            1,
            [0.1, 0.01, 0.001, 0.0001],
        ),
        (
            "{class_path: torchs.CosineAnnealingLR, init_args: {T_max: 4, eta_min: 0.02}}",
            4,
            by_epoch(*(0.02 + 0.08 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4))),
        ),
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
            "{class_path: our.ProgressLR, init_args: {shape: my.root}}",
            2,
            [0.1 * math.sqrt(1 - step / 8) for step in range(8)],
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


def test_a_plateau_cannot_be_stepped_by_step(make_classifier: Make) -> None:
    with pytest.raises(MisconfigurationException, match="lr_interval epoch for ReduceLROnPlateau, but got step"):
        lrs_of(make_classifier(lr_scheduler=ReduceLROnPlateau, lr_interval="step"), 1)


def test_each_group_has_a_lambda_of_its_own_that_a_saved_config_repeats() -> None:
    yaml = """
param_groups: [{pattern: fc3.*, lr: 0.3}, {pattern: conv*}]
lr_scheduler: {class_path: our.LambdaLR, init_args: {lr_lambda: [my.half, my.tenth, my.half]}}
"""
    for repeat in (False, True):
        lrs = lrs_of(classifier(yaml, repeat), 3)
        assert lrs["fc3"] == pytest.approx(by_epoch(0.3, 0.15, 0.075))
        assert lrs["conv"] == pytest.approx(by_epoch(0.1, 0.01, 0.001))
        assert lrs["default"] == pytest.approx(by_epoch(0.1, 0.05, 0.025))
    few = "lr_scheduler: {class_path: our.LambdaLR, init_args: {lr_lambda: [my.half, my.tenth]}}"
    with pytest.raises(MisconfigurationException, match=r"param groups default, but got: Expected 1 lr_lambdas"):
        lrs_of(classifier(few), 1)


def test_plateau_is_stepped_in_epochs_with_a_validation() -> None:
    module = classifier("lr_scheduler: {class_path: torchs.ReduceLROnPlateau, init_args: {patience: 0, threshold: 9}}")
    lrs = lrs_of(module, 5, check_val_every_n_epoch=2)
    assert lrs["default"] == pytest.approx(by_epoch(0.1, 0.1, 0.01, 0.01, 0.001))
    with pytest.raises(MisconfigurationException, match=r"Expected --trainer\.check_val_every_n_epoch for ReduceLR"):
        lrs_of(module, 1, check_val_every_n_epoch=None, val_check_interval=6)


MAIN = {
    "none": None,
    "OneCycle": partial(OneCycle, cycle_momentum=False),
    "StepLR": partial(StepLR, step_size=1, gamma=0.1),
    "StepLR by step": partial(StepLR, step_size=1, gamma=0.9),
    "cosine": partial(CosineAnnealingLR, T_max=5),
    "shape": partial(ProgressLR, shape=Triangle(1, 0, 0)),
    "plateau": partial(ReduceLROnPlateau, patience=0, threshold=1e9),
}


@pytest.mark.parametrize("main", MAIN)
def test_a_groups_own_schedule_works_with_any_other(make_classifier: Make, main: str) -> None:
    options: dict[str, Any] = {"lr_scheduler": MAIN[main], "lr_interval": "step" if "by step" in main else None}
    plain = lrs_of(make_classifier(**options), 4)
    rules = [ParamGroup("conv1.bias", lr=0.7, schedule=Triangle(1, 0, 0, until=3 / 8))]
    lrs = lrs_of(make_classifier(**options, param_groups=rules), 4)
    assert lrs["conv1.bias"] == pytest.approx([0.7 * max(1 - step / 6, 0) for step in range(16)])
    assert lrs["default"] == pytest.approx(plain["default"])


@pytest.mark.parametrize(
    ("cycle", "peaks"),
    [
        (partial(CyclicLR, base_lr=0.01, max_lr=0.3, step_size_up=4, cycle_momentum=False), (0.3, 3)),
        (partial(OneCycleLR, max_lr=0.3, cycle_momentum=False), (0.3, 3)),
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


@pytest.mark.parametrize("peak", [0.3, [1.5, 0.3]])
@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_all_learning_rates_are_scaled_by_the_number_of_devices_or_its_root(
    make_classifier: Make, scale: str, factor: float, peak: Any
) -> None:
    rules = [ParamGroup("fc3.*", lr=0.5), ParamGroup("fc2.*", schedule=Triangle())]
    cycle = partial(OneCycleLR, max_lr=peak, cycle_momentum=False)
    module = make_classifier(param_groups=rules, scale_lr=scale, lr_scheduler=cycle)
    module.trainer = trainer_of(-1, devices=4, strategy="ddp", max_steps=10)
    groups = module.configure_optimizers()["optimizer"].param_groups
    lrs = [group.get("max_lr", group["initial_lr"]) for group in groups]
    assert lrs == pytest.approx([factor * 1.5, factor * 0.1, factor * 0.3])


def test_a_group_has_its_own_schedule_from_yaml() -> None:
    yaml = """
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
        module = make_classifier(**options)
        trainer_of(3, trace).fit(module, batches(), batches(1), ckpt_path=file, weights_only=False)
        assert trace.frozen == [number < STEPS for number in range(step, 3 * STEPS)]
        for name, lrs in whole.items():
            assert trace.lrs[name] == pytest.approx(lrs[step:]), (name, moment)


@pytest.mark.parametrize(("count", "progress"), [(4, (0, 1 / 4, 2 / 4, 3 / 4)), (3, (0, 2 / 6, 3 / 6, 5 / 6))])
def test_accumulated_batches_are_one_step_of_a_schedule(
    make_classifier: Make, count: int, progress: tuple[float, ...]
) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle())]
    module = make_classifier(lr_scheduler=partial(ProgressLR, shape=Triangle()), param_groups=rules)
    lrs = lrs_of(module, 2, accumulate_grad_batches=2, limit_train_batches=count)
    assert lrs["default"] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert lrs["fc3"] == pytest.approx([0.1 * (1 - each) for each in progress])  # in images rather than steps


def test_steps_may_limit_a_training_instead_of_epochs(make_classifier: Make) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle())]
    for epochs in (-1, 9):
        lrs = lrs_of(make_classifier(param_groups=rules), epochs, max_steps=5)
        assert lrs["fc3"] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])


@pytest.mark.parametrize(
    ("options", "epochs", "message"),
    [
        ({"lr_scheduler": MAIN["shape"]}, -1, "Expected a known length of training"),
        ({"param_groups": [ParamGroup("fc3.*", schedule=Triangle())]}, -1, "Expected a known length of training"),
        ({"lr_scheduler": OneCycle, "param_groups": [ParamGroup("fc3.*", momentum=0.8)]}, 1, "cycle_momentum: false"),
        ({"lr_scheduler": OneCycle, "param_groups": [ParamGroup("*", schedule=Triangle())]}, 1, "without its own sch"),
        (
            {"lr_scheduler": partial(CyclicLR, base_lr=0.01, max_lr=0.1)}
            | {"param_groups": [ParamGroup("fc3.*", momentum=0.8)]},
            1,
            "cycle_momentum: false of CyclicLR",
        ),
        (
            {"optimizer": torch.optim.Rprop, "lr_scheduler": OneCycle},
            1,
            "Rprop and the param groups default, but got: optimizer",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_is_rejected_before_the_first_step(
    make_classifier: Make, options: dict[str, Any], epochs: int, message: str
) -> None:
    optimizer = {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}
    with pytest.raises(MisconfigurationException, match=message):
        lrs_of(make_classifier(**(optimizer | options)), epochs)


def test_a_group_with_its_own_schedule_and_momentum_is_not_part_of_the_cycle(make_classifier: Make) -> None:
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    rules = [ParamGroup("fc3.*", momentum=0.8, schedule=Triangle())]
    module = make_classifier(optimizer=optimizer, lr_scheduler=OneCycle, param_groups=rules)
    lrs_of(module, 1)
    own, others = module.trainer.optimizers[0].param_groups
    assert own["momentum"] == 0.8
    assert (others["base_momentum"], others["max_momentum"]) == (0.85, 0.95)


@pytest.mark.parametrize(
    "make", [lambda: Triangle(peak_at=0.5, until=0.5), lambda: Triangle(until=1.5), lambda: WarmupCosine(warmup=1.0)]
)
def test_an_invalid_shape_is_rejected(make: Callable[[], Any]) -> None:
    with pytest.raises(MisconfigurationException, match="Expected 0 <= "):
        make()


def test_a_shape_stays_at_its_end() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ProgressLR(optimizer, WarmupCosine(warmup=0.25, end=0.125), total_steps=4)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.125)


# Freezing


class TraceMoves(Callback):
    """Record which layers change in an epoch."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def on_train_epoch_start(self, trainer: Trainer, module: ImageClassifier) -> None:
        self.before = {name: value.clone() for name, value in module.network.state_dict().items()}

    def on_train_epoch_end(self, trainer: Trainer, module: ImageClassifier) -> None:
        state = module.network.state_dict()
        moved = {name.split(".")[0] for name, value in state.items() if not torch.equal(value, self.before[name])}
        self.moved.append(moved)


def test_layers_stay_frozen_until_their_epoch_or_for_good(make_classifier: Make) -> None:
    rules = [
        ParamGroup("conv1.*", freeze=True),
        ParamGroup("conv2*", unfreeze_epoch=2, lr=0.5),
        ParamGroup("fc1.*", unfreeze_epoch=1),
    ]
    module = make_classifier(
        param_groups=rules, lr_scheduler=OneCycle, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    module.network.fc1.bias.requires_grad_(False)
    lrs_of(module, 1)  # a second fit of the module starts like the first
    trace = TraceMoves()
    lrs = lrs_of(module, 3, trace)
    early = {"fc2", "fc3"}
    assert trace.moved == [early, early | {"fc1"}, early | {"fc1", "conv2"}]
    assert max(lrs["conv2"]) == pytest.approx(0.5, rel=0.01)


def test_layers_that_unfreeze_later_are_rejected_on_several_devices(make_classifier: Make) -> None:
    module = make_classifier(param_groups=[ParamGroup("conv*", unfreeze_epoch=2)])
    module.trainer = trainer_of(1, devices=2, strategy="ddp")
    with pytest.raises(MisconfigurationException, match=r"one device for unfreeze_epoch.*but got 2"):
        module.configure_optimizers()


def test_layers_that_would_unfreeze_after_the_training_are_reported(make_classifier: Make) -> None:
    rules = [ParamGroup("conv1*", unfreeze_epoch=1), ParamGroup("conv2*", unfreeze_epoch=2)]
    module = make_classifier(param_groups=rules)
    module.trainer = trainer_of(2)
    with pytest.warns(UserWarning, match="unfreeze_epoch of conv2, so they are never trained"):
        module.configure_optimizers()


# Groups that a callback adds


class UnfreezeConv1(BaseFinetuning):
    """Train the first layer from the second epoch on, by default at a fifth of the first group's learning rate."""

    def __init__(self, lr: float | None = None) -> None:
        super().__init__()
        self.lr = lr

    def freeze_before_training(self, module: ImageClassifier) -> None:
        self.freeze(module.network.conv1)

    def finetune_function(self, module: ImageClassifier, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.network.conv1, optimizer, self.lr, initial_denom_lr=5)


@pytest.mark.parametrize("main", MAIN)
def test_a_group_that_a_callback_adds_moves_in_proportion(make_classifier: Make, main: str, tmp_path: Path) -> None:
    rules = [ParamGroup("fc3.*", lr_scale=10)]
    interval = "step" if "by step" in main else None
    module = make_classifier(lr_scheduler=MAIN[main], param_groups=rules, lr_interval=interval)
    moves = TraceMoves()
    logger = CSVLogger(tmp_path)
    lrs = lrs_of(module, 3, UnfreezeConv1(), moves, LearningRateMonitor(), logger=logger, log_every_n_steps=1)
    assert ["conv1" in moved for moved in moves.moved] == [False, True, True]
    assert lrs["added"] == pytest.approx([lr / 5 for lr in lrs["fc3"][STEPS:]])
    assert lrs["fc3"] == pytest.approx([10 * lr for lr in lrs["default"]])
    assert "lr-SGD/pg3" in logger.experiment.metrics_keys


def test_an_added_group_follows_the_main_schedule_rather_than_a_groups_own(make_classifier: Make) -> None:
    rules = [ParamGroup("fc3.*", schedule=Triangle(until=0.1))]
    lrs = lrs_of(make_classifier(lr_scheduler=MAIN["shape"], param_groups=rules), 3, UnfreezeConv1(0.02))
    assert lrs["fc3"][STEPS:] == [0] * 8
    assert lrs["added"] == pytest.approx([0.02 * (1 - step / 8) for step in range(8)])


def test_an_added_group_returns_from_0_with_the_others(make_classifier: Make) -> None:
    schedule = partial(CosineAnnealingLR, T_max=6)  # to 0 within the second epoch, and back up
    lrs = lrs_of(make_classifier(lr_scheduler=schedule, lr_interval="step"), 3, UnfreezeConv1())
    assert lrs["default"][6] == 0
    assert lrs["default"][11] > 0.09
    assert lrs["added"] == pytest.approx([lr / 5 for lr in lrs["default"][STEPS:]])


@pytest.mark.parametrize("main", ["OneCycle", "cosine"])
def test_a_training_with_an_added_group_resumes(make_classifier: Make, main: str, tmp_path: Path) -> None:
    def make() -> ImageClassifier:
        return make_classifier(lr_scheduler=MAIN[main])

    save = ModelCheckpoint(tmp_path, "{step}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
    whole = lrs_of(make(), 4, UnfreezeConv1(), save, enable_checkpointing=True)
    trace = TraceLr()
    trainer = trainer_of(4, UnfreezeConv1(), trace)
    trainer.fit(make(), batches(), batches(1), ckpt_path=str(tmp_path / "step=8.ckpt"), weights_only=False)
    assert trace.lrs["default"] == pytest.approx(whole["default"][8:])
    assert trace.lrs["added"] == pytest.approx(whole["added"][4:])


def test_lightnings_backbone_finetuning_unfreezes_all_but_the_last_layer(make_classifier: Make) -> None:
    module = make_classifier(lr_scheduler=MAIN["shape"])
    callback = BackboneFinetuning(unfreeze_backbone_at_epoch=1, lambda_func=lambda epoch: 1.5)
    moves = TraceMoves()
    lrs = lrs_of(module, 3, callback, moves)
    assert moves.moved == [{"fc3"}, *[{"conv1", "conv2", "fc1", "fc2", "fc3"}] * 2]
    assert lrs["added"][0] == pytest.approx(lrs["default"][STEPS] / 10)
