"""Schedules that torch lacks."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


class OneCycle(OneCycleLR):
    """torch's ``OneCycleLR`` with each group's own learning rate as its peak, so that it is said in one place.

    Source: Smith and Topin, 2017, "Super-convergence".

    Args:
        optimizer: Its groups' ``lr`` are the peaks.
        total_steps: Steps of the cycle; ``ImageClassifier`` gives those of the whole training.
        **kwargs: See ``OneCycleLR``.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps, **kwargs)
