"""Log means of training metrics over an epoch, also over one in which training resumes."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class EpochMeans(Callback):
    """Average metrics of training steps over the images of an epoch, without waiting for the device.

    A torchmetrics metric, updated in each step, would take longer than the backward pass of a small network. Tags:
    ``train/<name>`` of each metric.
    """

    def __init__(self) -> None:
        self._count: float | Tensor = 0  # of images
        self._sums: dict[str, Tensor] = {}
        self._loaded: list[dict[str, Any]] = []  # state of each process

    def update(self, count: int | Tensor, means: dict[str, Tensor]) -> None:
        """Add a step: its number of images, and the means of metrics over them, scalars without gradient."""
        self._count = self._count + count
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0) + mean.float() * count

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the sums of the checkpoint, divided among the processes, or without any."""
        self._count, self._sums = 0, {}
        for state in self._loaded[trainer.global_rank :: trainer.world_size]:
            self._count += state["count"]
            for name, total in state["sums"].items():
                self._sums[name] = self._sums.get(name, 0) + torch.tensor(total, device=pl_module.device)
        self._loaded = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count = max(int(self._count), 1)
        for name, total in self._sums.items():
            pl_module.log_mean(f"train/{name}", total / count, count, prog_bar=name == "acc")  # type: ignore[operator]  # mypy takes it for a Tensor
        self._count, self._sums = 0, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of each process. All processes must call it."""
        states = [{"count": float(self._count), "sums": {name: float(total) for name, total in self._sums.items()}}]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, states[0])
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["states"]
