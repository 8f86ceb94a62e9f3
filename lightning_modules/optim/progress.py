"""How far a training is, and how long it takes, in steps or epochs."""

from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

Interval = Literal["step", "epoch"]


def total_steps(trainer: Trainer, interval: Interval = "step") -> int:
    """Return the number of steps or epochs of the whole training.

    Raises:
        MisconfigurationException: It is unknown.
    """
    steps = trainer.max_epochs if interval == "epoch" else trainer.estimated_stepping_batches
    if steps is None or not 0 < steps < float("inf"):
        needed = "--trainer.max_epochs" if interval == "epoch" else "--trainer.max_epochs or --trainer.max_steps"
        raise MisconfigurationException(
            f"Expected a known length of training for a schedule over the whole training, but got none. Set {needed}."
        )
    return int(steps)


def progress(trainer: Trainer, at_start: bool = False) -> float:
    """Return the fraction of the training that is done, from 0 to 1, by the limit that ends it first.

    It is counted in epochs if they limit the training, so that it does not depend on earlier batch sizes.

    Args:
        trainer: Trainer of a known length.
        at_start: Whether it is called when training starts or resumes, instead of at the end of a batch.
    """
    fractions = [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        fractions.append(epochs_so_far(trainer, at_start) / trainer.max_epochs)
    return min(max(fractions), 1.0)


def epochs_so_far(trainer: Trainer, at_start: bool) -> float:
    """Return the number of epochs, with the fraction of the current one whose batches have been stepped."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    stepped = batches.current.ready - batches.current.ready % trainer.accumulate_grad_batches
    fraction = 1.0 if batches.is_last_batch else stepped / trainer.num_training_batches
    # a checkpoint from an epoch's end may be from before or after Lightning counts the epoch as done
    whole = max(trainer.fit_loop.epoch_progress.current.ready - 1, 0) if at_start else trainer.current_epoch
    return whole + fraction


def steps_so_far(trainer: Trainer, interval: str) -> int:
    """Return the steps or epochs so far ("step", "epoch") when training resumes with the present batch size."""
    if interval == "epoch":
        return int(epochs_so_far(trainer, at_start=True))
    if trainer.max_epochs == -1:
        return trainer.global_step
    return round(progress(trainer, at_start=True) * total_steps(trainer))
