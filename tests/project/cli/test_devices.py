import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules import SampleDataModule
from project.cli.devices import KEY, Devices


@pytest.fixture
def trainer() -> Trainer:
    trainer = Trainer(logger=False, accelerator="cpu", accumulate_grad_batches=4)
    trainer.datamodule = SampleDataModule(batch_size=32)
    trainer.state.fn = TrainerFn.FITTING
    return trainer


def test_global_batch_size_is_reported(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    Devices().on_fit_start(trainer, None)
    expected = (
        "A step takes 128 images: 32 x 1 (devices) x 4 (accumulate_grad_batches). Learning rates: --model.scale_lr"
    )
    assert caplog.messages[-1] == f"{expected} none."


def test_resuming_with_another_number_of_devices_warns(trainer: Trainer, recwarn: pytest.WarningsRecorder) -> None:
    checkpoint: dict[str, int] = {}
    Devices().on_save_checkpoint(trainer, None, checkpoint)
    assert checkpoint == {KEY: 1}
    recwarn.clear()
    for same in (checkpoint, {"devices": {"world_size": 4}}):  # older checkpoints hold a dict
        Devices().on_load_checkpoint(trainer, None, same)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"on 4 devices, but training resumes on 1\. Unless .* multiply it by 4"):
        Devices().on_load_checkpoint(trainer, None, {KEY: 4})
