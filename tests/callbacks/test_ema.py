from collections.abc import Callable
from types import SimpleNamespace

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import EMA
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Weights(Callback):
    """Record a weight after each step, and in validation."""

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: ImageClassifier, *args: object) -> None:
        self.trained.append(pl_module.network.fc3.weight.detach().clone())

    def on_validation_batch_end(self, trainer: Trainer, pl_module: ImageClassifier, *args: object) -> None:
        self.validated.append(pl_module.network.fc3.weight.detach().clone())


def test_validation_sees_the_average_of_all_steps(make_classifier: Make) -> None:
    module = make_classifier()
    loader = DataLoader(TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % 10), 4)
    weights = Weights()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, callbacks=[EMA(decay=0.5), weights], **quiet
    )
    trainer.fit(module, loader, loader)
    first, second, third, fourth = weights.trained
    average = 0.5 * (0.5 * (0.5 * first + 0.5 * second) + 0.5 * third) + 0.5 * fourth
    torch.testing.assert_close(weights.validated[0], average)
    assert not torch.allclose(weights.validated[0], fourth)


def test_average_moves_to_the_device_that_trains_and_its_counter_does_not() -> None:
    average = EMA()
    average._average_model = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    average.on_fit_start(None, SimpleNamespace(device=torch.device("meta")))  # type: ignore[arg-type]  # only its device is used
    assert all(parameter.is_meta for parameter in average._average_model.module.parameters())
    assert average._average_model.n_averaged.device.type == "cpu"
