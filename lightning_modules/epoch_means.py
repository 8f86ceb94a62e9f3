"""Means of metrics over the steps of an epoch, which continue when training resumes within it."""

from typing import Any

import torch
from torch import Tensor


class EpochMeans:
    """Collect metrics of training steps without waiting for the device, and average them over the images of an epoch.

    A torchmetrics metric, updated in each step, would take longer than the backward pass of a small network.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int | Tensor, dict[str, Tensor]]] = []
        self._loaded: list[dict[str, Any]] = []

    def update(self, count: int | Tensor, means: dict[str, Tensor]) -> None:
        """Add a step: its number of images, and the means of metrics over them, scalars without gradient."""
        self._steps.append((count, means))

    def compute(self) -> tuple[int, dict[str, Tensor]]:
        """Return the number of images, 1 or more, and the means over them, and start from scratch.

        There are no means without steps, as with a custom training loop.
        """
        if not self._steps:
            return 1, {}
        counts, means = zip(*self._steps, strict=True)
        self._steps.clear()
        columns = {name: torch.stack([step[name] for step in means]).float() for name in means[0]}
        device = next(iter(columns.values())).device
        weights = torch.stack([torch.as_tensor(count, device=device) for count in counts])
        total = max(int(weights.sum()), 1)
        return total, {name: (column * weights).sum() / total for name, column in columns.items()}

    def begin(self, device: torch.device, rank: int, world_size: int) -> None:
        """Start with the steps of the loaded state, divided among the processes, or without any."""
        self._steps.clear()
        for part in self._loaded[rank::world_size]:
            columns = {name: column.to(device) for name, column in part["means"].items()}
            for i, count in enumerate(part["counts"].tolist()):
                self._steps.append((count, {name: column[i] for name, column in columns.items()}))
        self._loaded = []

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the steps of each process, stacked into few tensors on the CPU. All processes must call it."""
        parts = [_stacked(self._steps)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, parts[0])
        return parts

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Store a state for the next ``begin``."""
        self._loaded = state


def _stacked(steps: list[tuple[int | Tensor, dict[str, Tensor]]]) -> dict[str, Any]:
    names = steps[0][1] if steps else ()
    means = {name: torch.stack([values[name] for _, values in steps]).cpu() for name in names}
    return {"counts": torch.tensor([int(count) for count, _ in steps]), "means": means}
