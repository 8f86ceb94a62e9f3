import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules import ImageClassifier, ParamGroup
from lightning_modules.networks import LeNet, NiN, ResNet
from lightning_modules.optim.schedules import OneCycle

Make = Callable[..., ImageClassifier]


def batches(count: int = 4, size: int = 8) -> DataLoader:
    images = torch.randn(count * size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(count * size) % 10), size)


def fit(module: ImageClassifier, epochs: int = 1, callbacks: list | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches(), batches(2))
    return trainer


class TraceLr(Callback):
    """Record each group's lr at every step."""

    def __init__(self) -> None:
        self.trace: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.trace.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups})


def trace(module: ImageClassifier, epochs: int) -> list[dict[str, float]]:
    callback = TraceLr()
    fit(module, epochs, [callback])
    return callback.trace


def test_one_cycle_spans_the_training_and_keeps_each_groups_proportion(make_classifier: Make) -> None:
    module = make_classifier(
        lr_scheduler=partial(OneCycleLR, max_lr=0.3), param_groups=[ParamGroup("fc3.*", lr_scale=10)]
    )
    lrs = trace(module, epochs=5)
    assert len(lrs) == 20
    assert max(lr["default"] for lr in lrs) == pytest.approx(0.3)
    assert max(lr["fc3"] for lr in lrs) == pytest.approx(3.0)
    assert [lr["default"] for lr in lrs].index(max(lr["default"] for lr in lrs)) == pytest.approx(0.3 * 20, abs=1)
    assert lrs[-1]["default"] < 0.3 / 1000


def test_schedules_of_epochs_step_by_epoch_and_by_step_if_asked(make_classifier: Make) -> None:
    schedule = partial(StepLR, step_size=1, gamma=0.1)
    lrs = [lr["default"] for lr in trace(make_classifier(lr_scheduler=schedule), epochs=2)]
    assert lrs == pytest.approx([0.1] * 4 + [0.01] * 4)
    lrs = [lr["default"] for lr in trace(make_classifier(lr_scheduler=schedule, lr_interval="step"), epochs=1)]
    assert lrs == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_groups_keep_their_proportion_under_cosine(make_classifier: Make) -> None:
    module = make_classifier(
        lr_scheduler=partial(CosineAnnealingLR, T_max=4), param_groups=[ParamGroup("fc3.*", lr_scale=10)]
    )
    for lr in trace(module, epochs=3):
        assert lr["fc3"] == pytest.approx(10 * lr["default"])


@pytest.mark.parametrize(
    ("schedule", "monitor"),
    [
        (partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9), "val/loss"),
        (partial(ReduceLROnPlateau, monitor="train/loss", patience=0, threshold=1e9), "train/loss"),
    ],
)
def test_plateau_has_a_monitor(make_classifier: Make, schedule: partial, monitor: str) -> None:
    module = make_classifier(lr_scheduler=schedule)
    lrs = [lr["default"] for lr in trace(module, epochs=3)]
    assert module.trainer.lr_scheduler_configs[0].monitor == monitor
    assert lrs == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 4)


def test_frozen_layers_stay_and_others_move(make_classifier: Make) -> None:
    module = make_classifier(param_groups=[ParamGroup("conv*", freeze=True)])
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    fit(module)
    moved = {name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if not name.startswith("conv")}


def test_pattern_without_a_match_fails_before_training(make_classifier: Make) -> None:
    with pytest.raises(MisconfigurationException, match="fc9"):
        make_classifier(param_groups=[ParamGroup("fc9.*")])


class WrongWidth(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


def test_network_of_the_wrong_width_is_refused(make_classifier: Make) -> None:
    with pytest.raises(MisconfigurationException, match=r"logits \(1, 10\).*WrongWidth returns \(1, 7\)"):
        make_classifier(network=WrongWidth)


def test_checking_the_width_leaves_no_trace(make_classifier: Make) -> None:
    network = ResNet(10, 20)
    network.stem[1].eval()
    module = make_classifier(network=lambda num_classes: network)
    assert not module.network.stem[1].training
    assert module.network.stages.training
    assert all(norm.num_batches_tracked == 0 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


def test_logged_accuracies_are_those_of_the_predictions(make_classifier: Make) -> None:
    module = make_classifier(network=LeNet)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    results = trainer.test(module, batches(4), verbose=False)[0]
    images, targets = (torch.cat(parts) for parts in zip(*batches(4), strict=True))
    with torch.no_grad():
        logits = module.eval()(images)
    assert results["test/acc"] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    assert results["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), abs=1e-5)
    for label, name in enumerate(module.class_names):
        right = (logits.argmax(1) == targets)[targets == label].float().mean().item()
        assert results[f"test/acc/{name}"] == pytest.approx(right)


def test_a_class_without_test_images_has_no_accuracy(make_classifier: Make) -> None:
    module = make_classifier(network=LeNet)
    images, targets = (torch.cat(parts) for parts in zip(*batches(4), strict=True))
    known = targets != 3
    loader = DataLoader(TensorDataset(images[known], targets[known]), 32)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (results,) = trainer.test(module, loader, verbose=False)
    with torch.no_grad():
        hits = (module.eval()(images).argmax(1) == targets).float()
    assert f"test/acc/{module.class_names[3]}" not in results
    for label in set(targets[known].tolist()):
        assert results[f"test/acc/{module.class_names[label]}"] == pytest.approx(hits[targets == label].mean().item())


def test_a_loss_with_class_weights_is_measured_under_bf16_true(make_classifier: Make) -> None:
    weight = torch.arange(1.0, 11.0)  # exact in bfloat16
    module = make_classifier(loss=nn.CrossEntropyLoss(weight)).to(torch.bfloat16).eval()
    images, targets = next(iter(batches()))
    outputs = module.validation_step((images, targets), 0)
    expected = nn.functional.cross_entropy(outputs["logits"], targets, weight, reduction="none")
    torch.testing.assert_close(module.image_losses(outputs["logits"], targets), expected)
    torch.testing.assert_close(outputs["loss"].float(), expected.sum() / weight[targets].sum(), rtol=0.02, atol=0)


def test_channels_last_changes_the_layout_and_not_the_result(make_classifier: Make) -> None:
    torch.manual_seed(0)
    plain = make_classifier(network=partial(ResNet, depth=20)).eval()
    last = make_classifier(network=partial(ResNet, depth=20), channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    assert last.network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(images), last(images), atol=1e-4, rtol=1e-4)


def test_classify_refuses_images_that_are_scaled_already(make_classifier: Make) -> None:
    with pytest.raises(ValueError, match="Expected raw uint8 images"):
        make_classifier().eval().classify(torch.rand(1, 3, 32, 32))


def test_each_groups_own_lr_is_the_peak_of_its_cycle(make_classifier: Make) -> None:
    lrs = trace(make_classifier(lr_scheduler=partial(OneCycle), param_groups=[ParamGroup("fc3.*", lr=0.7)]), epochs=5)
    assert max(lr["default"] for lr in lrs) == pytest.approx(0.1)
    assert max(lr["fc3"] for lr in lrs) == pytest.approx(0.7)
    assert lrs[-1]["default"] < 0.1 / 1000


def test_one_cycle_by_epoch_spans_the_epochs(make_classifier: Make) -> None:
    lrs = trace(make_classifier(lr_scheduler=partial(OneCycleLR, max_lr=0.3), lr_interval="epoch"), epochs=5)
    assert max(lr["default"] for lr in lrs) > 0.25


def test_denormalize_undoes_normalize(make_classifier: Make) -> None:
    module = make_classifier()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(module.denormalize(module.normalize(images)), images / 255)


def test_balanced_class_weights_are_inverse_counts_with_a_mean_of_1_over_the_images(
    make_classifier: Make,
) -> None:
    counts = [10, 30, *[20] * 8]
    module = make_classifier(class_weights="balanced", class_counts=counts)
    weights = module.loss.weight
    assert weights[0] / weights[1] == pytest.approx(3)
    assert (weights * torch.tensor(counts)).sum() / sum(counts) == pytest.approx(1)
    logits, targets = torch.randn(6, 10), torch.tensor([0, 1, 1, 2, 3, 4])
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = (each * weights[targets]).sum() / weights[targets].sum()
    torch.testing.assert_close(module.loss(logits, targets), expected)
    batch = (torch.randn(6, 3, 32, 32), targets)
    with patch.object(module, "log"), torch.no_grad():
        loss = module.eval().validation_step(batch, 0)["loss"]
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(module(batch[0]), targets))


@pytest.mark.parametrize("changes", [{"class_counts": None}, {"class_counts": [1] * 10, "loss": torch.nn.Identity()}])
def test_class_weights_without_counts_or_a_loss_that_takes_them_are_refused(
    make_classifier: Make, changes: dict[str, Any]
) -> None:
    with pytest.raises(MisconfigurationException, match="class_weights balanced"):
        make_classifier(class_weights="balanced", **changes)


def test_logits_of_views_are_averaged(make_classifier: Make) -> None:
    module = make_classifier().eval()
    views = torch.randn(4, 5, 3, 32, 32)
    expected = torch.stack([module(views[:, view]) for view in range(5)]).mean(0).argmax(1)
    with torch.no_grad():
        outputs = module.validation_step((views, torch.zeros(4, dtype=torch.int64)), 0)
    assert torch.equal(outputs["preds"], expected)


def test_epochs_means_weigh_each_image_alike_and_mixed_ones_by_their_larger_share(make_classifier: Make) -> None:
    module = make_classifier(optimizer=partial(torch.optim.SGD, lr=0.0))
    images = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(10, 10)
    targets[:, 3], targets[:, 5] = 0.7, 0.3
    with torch.no_grad():
        logits = module(images)
    targets[0] = 0.0
    targets[0, logits[0].argmax()] = 1.0  # one correct prediction
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(TensorDataset(images, targets), 8))  # batches of 8 and 2
    hits = (logits.argmax(1) == targets.argmax(1)).float()
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(hits.mean().item())
    expected = nn.functional.cross_entropy(logits, targets).item()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_loss_of_a_step_is_logged_in_steps_that_log(make_classifier: Make, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=logger, log_every_n_steps=3, enable_checkpointing=False)
    trainer.fit(make_classifier(), batches(5))
    with Path(logger.log_dir, "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
    assert steps == [2, 5, 8]


class OwnOptimizer(ImageClassifier):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def test_a_module_may_have_an_optimizer_of_its_own() -> None:
    module = OwnOptimizer(
        network=LeNet,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        class_names=list("abcdefghij"),
        mean=[0.5] * 3,
        std=[0.2] * 3,
        image_size=32,
    )
    before = module.network.fc3.weight.detach().clone()
    fit(module)
    assert not torch.equal(module.network.fc3.weight, before)


class Twice(LeNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images), None


class Asserting(LeNet):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("Input height doesn't match")


@pytest.mark.parametrize(
    ("network", "message"), [(Twice, "is a tensor, but Twice returns tuple"), (Asserting, "height")]
)
def test_network_without_a_tensor_output_is_rejected_with_a_reason(
    network: type, message: str, make_classifier: Make
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        make_classifier(network=network)


def test_compiled_network_trains_to_the_same_weights_and_does_not_validate(
    make_classifier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def compile_eagerly(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def called(images: torch.Tensor) -> torch.Tensor:
            calls.append(torch.is_grad_enabled())
            return torch_compile(forward, backend="eager")(images)

        return called

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    weights = []
    for is_compiled in (False, True):
        torch.manual_seed(0)
        module = make_classifier(compile=is_compiled)
        fit(module)
        weights.append(module.network.state_dict())
    assert calls == [True] * 4  # only the training steps, not the sanity check or validation
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "InvalidCxxCompiler: No working C++ compiler found in (None, 'g++')\n\nSet ...",
            r"'g\+\+'\)\. Install g\+\+, set CXX",
        ),
        ("Failed to find C compiler. Please specify via CC", "specify via CC. Install gcc, set CC to a compiler"),
    ],
)
def test_compiling_without_a_compiler_names_the_missing_one(
    message: str, advice: str, make_classifier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "compile", lambda forward: fail)
    with pytest.raises(MisconfigurationException, match=advice) as error:
        fit(make_classifier(compile=True))
    assert "\n" not in str(error.value)


def test_means_of_an_epoch_are_exact_under_bf16_true(make_classifier: Make) -> None:
    module = make_classifier(optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer = Trainer(accelerator="cpu", max_epochs=1, precision="bf16-true", logger=False, enable_checkpointing=False)
    targets = torch.full((257,), 7)
    targets[200:] = 8
    images = torch.zeros(257, 3, 32, 32)
    with torch.no_grad():
        module.network.fc3.bias[7] = 10  # predicted with a large margin, independent of rounding
    trainer.fit(module, DataLoader(TensorDataset(images, targets), 16))
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(200 / 257, abs=1e-6)


def test_steps_of_an_interrupted_fit_do_not_count_in_the_next(make_classifier: Make) -> None:
    module = make_classifier(optimizer=partial(torch.optim.SGD, lr=0.0))
    module.log_training(1000, loss=torch.tensor(1e6), acc=torch.tensor(0.0))
    assert fit(module).callback_metrics["train/loss"] < 10


def test_parameters_that_never_unfreeze_are_named(make_classifier: Make) -> None:
    module = make_classifier(param_groups=[ParamGroup("conv1.*", unfreeze_epoch=1)])
    with pytest.warns(UserWarning, match=r"2 parameters stay frozen.*conv1\.weight, conv1\.bias"):
        fit(module, epochs=1)


class AlwaysSecond(nn.Module):
    """A network that always predicts class 1."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(F.one_hot(torch.tensor(1), num_classes) * 1e3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_images_that_the_loss_ignores_are_excluded(
    make_classifier: Make, loss: type[nn.Module], reduction: str
) -> None:
    module = make_classifier(network=AlwaysSecond, loss=loss(ignore_index=0, reduction=reduction))
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 0, 1, 2, 0, 1])
    loader = DataLoader(TensorDataset(images, targets), 3)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, **quiet)
    trainer.fit(module, loader, loader)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/acc"] == logged["val/acc"] == pytest.approx(2 / 3)
    assert logged["train/loss"] == pytest.approx(1000 / 3, rel=0.01)  # one of three is wrong, by 1,000
    assert trainer.test(module, loader, verbose=False)[0]["test/acc"] == pytest.approx(2 / 3)


def test_raw_images_are_refused(make_classifier: Make) -> None:
    raw = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    module = make_classifier()
    with pytest.raises(ValueError, match="Call normalize first"):
        module(raw)
    assert module(module.normalize(raw)).shape == (1, 10)


def test_images_of_another_size_than_in_training_are_not_classified(make_classifier: Make) -> None:
    module = make_classifier().eval()
    with pytest.raises(ValueError, match=r"Expected images of 32x32 pixels.*got \(29, 29\)"):
        module.classify(torch.zeros(1, 3, 29, 29, dtype=torch.uint8))


def test_backbone_ends_before_the_last_layer_with_weights(make_classifier: Make) -> None:
    module = make_classifier(network=NiN)
    layers = dict(module.network.named_children())
    assert not list(layers["dropout"].parameters())
    left = {id(layer) for name, layer in layers.items() if list(layer.parameters())} - set(map(id, module.backbone))
    assert len(left) == 1
