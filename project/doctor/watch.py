"""Judge a training while it runs: what ``fit`` adds to the callback ``Doctor``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from callbacks.doctor import Doctor
from project.doctor.preflight import PreFlight
from project.doctor.run import judge, known_causes


def add_judgement(callbacks: Sequence[Callback]) -> None:
    """Let the ``Doctor`` among some callbacks examine the module before training, and judge the facts of a run.

    Raises:
        RunError: It silences an unknown cause.
    """
    for doctor in callbacks:
        if isinstance(doctor, Doctor):
            doctor.examine, doctor.judge = examine, partial(judge, silenced=known_causes(doctor.silence))


def examine(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return facts about network, loss and schedule from examining copies, which leaves random states as they were."""
    if trainer.world_size > 1 and any(isinstance(each, nn.SyncBatchNorm) for each in pl_module.modules()):
        return {}  # they would wait for the other ranks
    check = PreFlight(quick=True)
    check.examine(trainer, pl_module)
    return check.facts
