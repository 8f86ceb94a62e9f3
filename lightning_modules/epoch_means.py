"""Log means of training metrics over an epoch, also over one in which training resumes."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class EpochMeans(Callback):
    """Average metrics of training steps over the images of an epoch, without an operation in most steps.

    It waits for the device only when the module logs, and at the end of an epoch. A torchmetrics metric, updated in
    each step, would take longer than the backward pass of a small network. Tags: ``train/<name>`` of each metric.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[float | Tensor, dict[str, Tensor]]] = []  # steps that are not in the sums yet
        self._count = 0.0  # of images
        self._sums: dict[str, float] = {}
        self._loaded: list[dict[str, Any]] = []  # state of each process

    def update(self, count: int | Tensor, means: dict[str, Tensor]) -> None:
        """Store a step: its number of images, and the means of metrics over them, scalars without gradient."""
        self._steps.append((count, means))

    def add_up(self) -> None:
        """Transfer the stored steps at once, and add them in their order, so that any grouping has the same sums."""
        steps, self._steps = self._steps, []
        numbers = [number for count, means in steps for number in (count, *means.values())]
        tensors = [number.float() for number in numbers if isinstance(number, Tensor)]
        values = iter(torch.stack(tensors).tolist() if tensors else [])
        for count, means in steps:
            images = next(values) if isinstance(count, Tensor) else count
            self._count += images
            for name in means:
                self._sums[name] = self._sums.get(name, 0) + next(values) * images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the sums of the checkpoint, divided among the processes, or without any."""
        self._steps, self._count, self._sums = [], 0.0, {}
        for state in self._loaded[trainer.global_rank :: trainer.world_size]:
            self._count += state["count"]
            for name, total in state["sums"].items():
                self._sums[name] = self._sums.get(name, 0) + total
        self._loaded = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.add_up()
        count = max(int(self._count), 1)
        for name, total in self._sums.items():
            pl_module.log_mean(f"train/{name}", total / count, count, prog_bar=name == "acc")  # type: ignore[operator]  # mypy takes it for a Tensor
        self._count, self._sums = 0.0, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of each process. All processes must call it."""
        self.add_up()
        states = [{"count": self._count, "sums": dict(self._sums)}]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, states[0])
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["states"]
