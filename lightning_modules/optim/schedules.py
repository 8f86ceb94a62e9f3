"""Learning rate schedules in addition to torch's, and the progress of the training that they depend on.

A shape is any function of the training's progress, from 0 to 1, that returns a factor on a learning rate.
``ProgressLR`` applies one to all param groups; the ``schedule`` of a ``ParamGroup`` applies only to that group.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer, lr_scheduler

Interval = Literal["step", "epoch"]


@dataclass
class Triangle:
    """Shape that rises linearly from ``start`` to 1 and falls linearly to ``end``.

    Args:
        start: Factor at the beginning; has no effect if ``peak_at`` is 0.
        peak_at: Progress at which the factor is 1.
        end: Factor at ``until`` and from then on.
        until: Progress at which ``end`` is reached.

    Raises:
        MisconfigurationException: ``peak_at`` is not from 0 to below ``until``, or ``until`` is above 1.
    """

    start: float = 0.0
    peak_at: float = 0.0
    end: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.peak_at < self.until <= 1:
            raise MisconfigurationException(
                f"Expected 0 <= peak_at < until <= 1 for a Triangle, but got {self.peak_at} and {self.until}."
            )

    def __call__(self, progress: float) -> float:
        if progress < self.peak_at:
            return self.start + (1 - self.start) * progress / self.peak_at
        fallen = min((progress - self.peak_at) / (self.until - self.peak_at), 1.0)
        return 1 + (self.end - 1) * fallen


@dataclass
class WarmupCosine:
    """Shape that rises linearly from 0 to 1, then falls to ``end`` along half a cosine.

    Source: Loshchilov and Hutter, 2017, "SGDR"; Goyal et al., 2017, "Accurate, Large Minibatch SGD" (the warm-up).

    Args:
        warmup: Progress at which the factor is 1.
        end: Factor at the end.

    Raises:
        MisconfigurationException: ``warmup`` is not in ``[0, 1)``.
    """

    warmup: float = 0.05
    end: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise MisconfigurationException(
                f"Expected 0 <= warmup < 1, a fraction of the training, for a WarmupCosine, but got {self.warmup}."
            )

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        fallen = (1 - math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2
        return 1 + (self.end - 1) * fallen


class ProgressLR(lr_scheduler.LambdaLR):
    """Multiply each group's learning rate by a shape over the whole training.

    Args:
        optimizer: Optimizer whose groups' ``lr`` are multiplied.
        shape: Function of progress, from 0 to 1, that returns a factor.
        total_steps: Number of training steps; set by the module.
    """

    def __init__(self, optimizer: Optimizer, shape: Callable[[float], float], total_steps: int | None = None) -> None:
        if total_steps is None:
            raise ValueError("Expected total_steps, but got None")
        super().__init__(optimizer, lambda step: shape(min(step / total_steps, 1.0)))


class OneCycle(lr_scheduler.OneCycleLR):
    """torch's ``OneCycleLR`` with each group's own learning rate as its peak, so that it is configured only once.

    Source: Smith and Topin, 2017, "Super-convergence".

    Args:
        optimizer: Optimizer whose groups' ``lr`` are the peaks.
        total_steps: Number of steps of the cycle; the module sets that of the whole training.
        **kwargs: See ``OneCycleLR``.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps, **kwargs)


class LambdaLR(lr_scheduler.LambdaLR):
    """torch's ``LambdaLR`` with functions that can be saved to a run's config.yaml and read again.

    Args:
        optimizer: Optimizer whose groups' ``lr`` are multiplied.
        lr_lambda: Function of the number of steps or epochs so far that returns a factor, or one function per group.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: list[Callable[[int], float]] | Callable[[int], float]) -> None:
        super().__init__(optimizer, lr_lambda)


def total_steps(trainer: Trainer, interval: Interval = "step") -> int:
    """Return the number of steps or epochs of the whole training, or raise an error if it is unknown."""
    steps = trainer.max_epochs if interval == "epoch" else trainer.estimated_stepping_batches
    if steps is None or not 0 < steps < float("inf"):
        raise MisconfigurationException(
            "Expected a known length of training for a schedule over the whole training. Set --trainer.max_epochs."
        )
    return int(steps)


def progress(trainer: Trainer, at_start: bool = False) -> float:
    """Return the fraction of the training that is done, from 0 to 1, by the limit that ends it first.

    It is counted in epochs if they limit the training, so that it does not depend on batch sizes before a resume.
    ``at_start`` means that training starts or resumes; otherwise, a batch ends.
    """
    steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
    limit = trainer.max_epochs or -1  # -1: none
    return min(max(steps, epochs_so_far(trainer, at_start) / limit), 1.0)


def epochs_so_far(trainer: Trainer, at_start: bool) -> float:
    """Return the number of epochs, with the fraction of the current one whose batches have been stepped."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    stepped = batches.current.ready - batches.current.ready % trainer.accumulate_grad_batches
    # a checkpoint from an epoch's end may be from before or after Lightning counts the epoch as done
    whole = max(trainer.fit_loop.epoch_progress.current.ready - 1, 0) if at_start else trainer.current_epoch
    return whole + (1.0 if batches.is_last_batch else stepped / trainer.num_training_batches)


def steps_so_far(trainer: Trainer, interval: str) -> int:
    """Return the steps or epochs so far ("step", "epoch") when training resumes with the present batch size."""
    if interval == "epoch":
        return int(epochs_so_far(trainer, at_start=True))
    if trainer.max_epochs == -1:
        return trainer.global_step
    return round(progress(trainer, at_start=True) * total_steps(trainer))
