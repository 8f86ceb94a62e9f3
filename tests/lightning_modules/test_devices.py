from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from datamodules import SampleDataModule
from lightning_modules.devices import compare_devices, lr_factor
from lightning_modules.optim.schedulers import build_scheduler
from project.__main__ import main


def test_learning_rates_stay_or_follow_the_number_of_devices_or_its_root() -> None:
    assert [lr_factor(scale, 4) for scale in ("none", "linear", "sqrt")] == [1, 4, 2]
    assert [lr_factor(scale, 1) for scale in ("none", "linear", "sqrt")] == [1, 1, 1]


@pytest.mark.parametrize("max_lr", [0.4, [0.4, 0.04]])
@pytest.mark.parametrize("kind", [partial(OneCycleLR, total_steps=10), partial(CyclicLR, base_lr=0.01)])
def test_limits_of_a_cycle_follow_the_learning_rates(kind: partial, max_lr: float | list[float]) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "name": name, "lr": lr} for name, lr in (("a", 1), ("b", 0.1))]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    for group in [*optimizer.param_groups, optimizer.defaults]:  # like the module for two devices
        group["lr"] *= 2
    trainer = Trainer(max_epochs=1, logger=False, accelerator="cpu")
    scheduler = build_scheduler(partial(kind, max_lr=max_lr), optimizer, trainer, lr_factor=2)["scheduler"]
    max_lrs = scheduler.max_lrs if kind.func is CyclicLR else [group["max_lr"] for group in optimizer.param_groups]
    assert max_lrs == pytest.approx([0.8, 0.08])


def test_global_batch_size_is_reported_once(fast: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["--trainer.accumulate_grad_batches=4", "--callbacks=false", f"--runs_dir={tmp_path}"]
    main(["fit", *fast, *options, "--trainer.max_epochs=1"])
    messages = [record.message for record in caplog.records if record.message.startswith("A step takes")]
    assert messages == [
        "A step takes 128 images: 32 on each of 1 device, 4 times (accumulate_grad_batches). Learning rates are as "
        "given (--model.scale_lr none)."
    ]


def test_resuming_with_another_number_of_devices_warns(finished_run: Path, recwarn: pytest.WarningsRecorder) -> None:
    checkpoint = torch.load(finished_run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["devices"] == {"devices": 1, "batch_size": 32}
    trainer = Trainer(logger=False, accelerator="cpu")
    trainer.datamodule = SampleDataModule(batch_size=16)
    trainer.state.fn = TrainerFn.FITTING
    recwarn.clear()
    compare_devices(trainer, checkpoint, new_settings=False)
    assert not recwarn
    rates = "Learning rates and schedule lengths are those of the checkpoint"
    for new_settings in (False, True):
        with pytest.warns(UserWarning, match=r"8 images on each of 4 devices, but .* with 16.*size 32\.") as warned:
            compare_devices(trainer, {"devices": {"devices": 4, "batch_size": 8}}, new_settings)
        assert (rates in str(warned[0].message)) != new_settings
