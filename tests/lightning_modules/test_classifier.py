import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training import batches, trainer_of

from lightning_modules import ImageClassifier, Initializer, ParamGroup
from lightning_modules.epoch_means import EpochMeans
from lightning_modules.networks import LeNet, ResNet
from lightning_modules.optim import OneCycle, Triangle

Make = Callable[..., ImageClassifier]
SGD = partial(torch.optim.SGD, lr=0.0)  # trains nothing


def fit(module: ImageClassifier, loader: DataLoader | None = None, **options: Any) -> dict[str, float]:
    """Train, and return the logged metrics."""
    trainer = trainer_of(**options)
    trainer.fit(module, loader or batches(), loader or batches(2))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_a_plain_trainer_trains_tests_and_saves_a_classifier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    module = ImageClassifier(
        network=LeNet,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        lr_scheduler=OneCycle,
        param_groups=[ParamGroup("fc3.*", schedule=Triangle()), ParamGroup("conv1.*", unfreeze_epoch=1)],
        initializers=[Initializer("xavier_uniform", layer="Linear", pattern="*.weight")],
        class_names=list("abcdefghij"),
        mean=[0.5] * 3,
        std=[0.2] * 3,
        image_size=32,
    )
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(module, batches(), batches(2))
    assert {"train/loss", "train/acc", "val/loss", "val/acc"} <= trainer.callback_metrics.keys()
    assert "Initialisation" in capsys.readouterr().out
    results = trainer.test(module, batches(2))
    assert "will override" not in caplog.text  # Lightning's note about the module's callbacks
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "plain.ckpt", weights_only=False)
    assert trainer_of().test(loaded, batches(2), verbose=False) == results
    trainer_of(2).fit(loaded, batches(), ckpt_path=tmp_path / "plain.ckpt", weights_only=False)
    assert "Initialisation" not in capsys.readouterr().out  # the checkpoint replaces these weights


def test_each_rank_has_its_own_random_numbers(make_classifier: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageClassifier, "global_rank", 3)
    torch.manual_seed(5)
    make_classifier().on_fit_start()
    assert torch.initial_seed() == 8


class WrongWidth(LeNet):
    def __init__(self, num_classes: int) -> None:
        super().__init__(7)


class Twice(LeNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images), None


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        (WrongWidth, 32, r"logits \(1, 10\).*WrongWidth returns \(1, 7\)"),
        (Twice, 32, "is a tensor, but Twice returns tuple"),
        (LeNet, 29, "LeNet does not accept images of 29x29 pixels"),
    ],
)
def test_network_without_logits_is_rejected_with_a_reason(
    network: type, size: int, message: str, make_classifier: Make
) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        make_classifier(network=network, image_size=size)


def test_checking_the_width_leaves_no_trace(make_classifier: Make) -> None:
    network = ResNet(10, 20)
    network.stem[1].eval()
    module = make_classifier(network=lambda num_classes: network)
    assert not module.network.stem[1].training
    assert module.network.stages.training
    assert all(norm.num_batches_tracked == 0 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize("absent", [-1, 3])
def test_logged_accuracies_are_those_of_the_predictions(make_classifier: Make, absent: int) -> None:
    module = make_classifier(network=LeNet)
    images, targets = (torch.cat(parts) for parts in zip(*batches(4), strict=True))
    images, targets = images[targets != absent], targets[targets != absent]
    (results,) = trainer_of().test(module, DataLoader(TensorDataset(images, targets), 8), verbose=False)
    with torch.no_grad():
        logits = module.eval()(images)
    hits = (logits.argmax(1) == targets).float()
    assert results.pop("test/acc") == pytest.approx(hits.mean().item())
    assert results.pop("test/loss") == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), abs=1e-5)
    labels = {f"test/acc/{name}": label for label, name in enumerate(module.class_names) if label != absent}
    assert results == {name: pytest.approx(hits[targets == label].mean().item()) for name, label in labels.items()}


def test_a_loss_with_class_weights_is_measured_under_bf16_true(make_classifier: Make) -> None:
    weight = torch.arange(1.0, 11.0)  # exact in bfloat16
    module = make_classifier(loss=nn.CrossEntropyLoss(weight)).to(torch.bfloat16).eval()
    images, targets = next(iter(batches()))
    outputs = module.validation_step((images, targets), 0)
    expected = nn.functional.cross_entropy(outputs["logits"], targets, weight, reduction="none")
    torch.testing.assert_close(module.image_losses(outputs["logits"], targets), expected)
    torch.testing.assert_close(outputs["loss"].float(), expected.sum() / weight[targets].sum(), rtol=0.02, atol=0)


def test_channels_last_changes_the_layout_and_not_the_result(make_classifier: Make) -> None:
    plain = make_classifier(network=partial(ResNet, depth=20)).eval()
    last = make_classifier(network=partial(ResNet, depth=20), channels_last=True).eval()
    last.load_state_dict(plain.state_dict())
    assert last.network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(images), last(images), atol=1e-4, rtol=1e-4)


def test_images_are_normalised_and_back_and_others_are_refused(make_classifier: Make) -> None:
    module = make_classifier().eval()
    raw = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(module.denormalize(module.normalize(raw)), raw / 255)
    assert module.classify(raw).shape == (2, 10)
    for wrong in (raw / 255, raw[:, :, :29, :29]):
        with pytest.raises(ValueError, match=r"Expected raw uint8 images \(N, 3, 32, 32\)"):
            module.classify(wrong)
    with pytest.raises(ValueError, match="Call normalize first"):
        module(raw)


def test_balanced_class_weights_do_not_weight_validation(make_classifier: Make) -> None:
    module = make_classifier(class_weights="balanced", class_counts=[10, 30, *[20] * 8]).eval()
    images, targets = next(iter(batches()))
    with patch.object(module, "log"), torch.no_grad():
        loss = module.validation_step((images, targets), 0)["loss"]
        torch.testing.assert_close(loss, F.cross_entropy(module(images), targets))


@pytest.mark.parametrize(
    "changes",
    [{"class_counts": None}] + [{"class_counts": [1] * 10, "loss": loss} for loss in (nn.Identity(), nn.MSELoss())],
)
def test_balanced_weights_need_counts_and_a_loss_with_weights(make_classifier: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationException, match="class_weights balanced"):
        make_classifier(class_weights="balanced", **changes)


def test_epochs_means_weigh_each_image_alike_and_mixed_ones_by_their_larger_share(make_classifier: Make) -> None:
    module = make_classifier(optimizer=SGD)
    images = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(10, 10)
    targets[:, 3], targets[:, 5] = 0.7, 0.3
    with torch.no_grad():
        logits = module(images)
    targets[0] = F.one_hot(logits[0].argmax(), 10)  # one correct prediction
    module.log_training(1000, loss=torch.tensor(1e6), acc=torch.tensor(0.0))  # of an interrupted fit: does not count
    trainer = trainer_of()
    trainer.fit(module, DataLoader(TensorDataset(images, targets), 8))  # batches of 8 and 2
    hits = (logits.argmax(1) == targets.argmax(1)).float()
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(hits.mean().item())
    expected = nn.functional.cross_entropy(logits, targets).item()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_means_of_an_epoch_are_exact_under_bf16_true(make_classifier: Make) -> None:
    module = make_classifier(optimizer=SGD)
    targets = torch.full((257,), 7)
    targets[200:] = 8
    with torch.no_grad():
        module.network.fc3.bias[7] = 10  # predicted with a large margin, independent of rounding
    trainer = trainer_of(precision="bf16-true")
    trainer.fit(module, DataLoader(TensorDataset(torch.zeros(257, 3, 32, 32), targets), 16))
    assert trainer.callback_metrics["train/acc"].item() == pytest.approx(200 / 257, abs=1e-6)


def test_loss_of_a_step_is_logged_in_steps_that_log(make_classifier: Make, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    trainer_of(2, logger=logger, log_every_n_steps=3).fit(make_classifier(), batches(5))
    with Path(logger.log_dir, "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_step"]]
    assert steps == [2, 5, 8]


class OwnOptimizer(ImageClassifier):
    def configure_optimizers(self) -> Any:
        groups = [{"params": [parameter]} for parameter in self.parameters()]
        optimizer = torch.optim.Adam(groups)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


def test_a_module_may_have_an_optimizer_and_a_schedule_of_its_own(make_classifier: Make) -> None:
    module = OwnOptimizer(**make_classifier().hparams)
    before = module.network.fc3.weight.detach().clone()
    fit(module)
    assert not torch.equal(module.network.fc3.weight, before)
    assert [group["lr"] for group in module.trainer.optimizers[0].param_groups] == pytest.approx([1e-4] * 10)


def test_compiled_network_trains_to_the_same_weights_and_does_not_validate(
    make_classifier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def compile_eagerly(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def called(images: torch.Tensor) -> torch.Tensor:
            calls.append(torch.is_grad_enabled())
            return forward(images)

        return called

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    weights = []
    for is_compiled in (False, True):
        torch.manual_seed(0)
        module = make_classifier(compile=is_compiled)
        fit(module)
        weights.append(module.network.state_dict())
    assert calls == [True] * 4  # only the training steps, not the sanity check or validation
    torch.testing.assert_close(weights[1], weights[0])


def test_means_of_an_epoch_do_not_depend_on_when_steps_are_added_up() -> None:
    states = []
    for every in (1, 3, 100):
        means = EpochMeans()
        for step in range(10):
            count = torch.tensor(5) if step % 2 else 3  # a module may count on the device
            means.update(count, {"loss": torch.tensor(0.1 * step), "acc": torch.tensor(1 / (step + 3))})
            if step % every == 0:
                means.add_up()
        states += means.state_dict()["states"]
    assert states[0] == states[1] == states[2]
    assert states[0]["count"] == 40
    assert states[0]["sums"]["loss"] == pytest.approx(0.3 * 20 + 0.5 * 25)
