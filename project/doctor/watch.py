"""Judge a training while it runs: what ``fit`` adds to the callback ``Doctor``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from callbacks.base.log import LogSnapshot
from callbacks.doctor import Doctor
from project.doctor.messages import terminal
from project.doctor.preflight import PreFlight
from project.doctor.run import diagnose_run, known_causes
from project.errors import debugging, shortened


def add_judgement(callbacks: Sequence[Callback]) -> None:
    """Let the ``Doctor`` among some callbacks examine the module before training, and judge the facts of a run.

    Raises:
        RunError: It silences an unknown cause.
    """
    for doctor in callbacks:
        if isinstance(doctor, Doctor):
            doctor.examine, doctor.judge = examine, Judge(known_causes(doctor.silence))


def examine(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return facts about network, loss and schedule from examining copies, which leaves random states as they were."""
    if trainer.world_size > 1 and any(isinstance(each, nn.SyncBatchNorm) for each in pl_module.modules()):
        return {}  # they would wait for the other ranks
    check = PreFlight(quick=True)
    check.examine(trainer, pl_module)
    return check.facts


class Judge:
    """Judge a run directory, and print each alarm once per start.

    In training, an alarm counts if two judgements in a row agree, because a network passes through states that look
    like faults; before the first step and at the end, one is enough.
    """

    def __init__(self, silenced: frozenset[str]) -> None:
        self.silenced = silenced
        self._before: set[str] = set()
        self._printed: set[str] = set()

    def __call__(self, trainer: Trainer, is_last: bool) -> bool:
        """Write doctor.json, print and log a new alarm, and return whether there is one that counts."""
        try:
            return self._judge(trainer, is_last)
        except Exception as error:  # a diagnosis must not end a training
            if debugging():
                raise
            rank_zero_warn(f"The doctor failed ({type(error).__name__}: {shortened(error)}). Training continues.")
            return False

    def _judge(self, trainer: Trainer, is_last: bool) -> bool:
        result = diagnose_run(Path(trainer.default_root_dir), self.silenced)
        found = {alarm["cause"] for alarm in result["alarms"]}
        counts = found if is_last or trainer.global_step == 0 else found & self._before
        self._before = found
        for cause in counts - self._printed:  # at most one
            self._printed.add(cause)
            option = f"--callbacks.doctor.silence '[{cause}]'"
            lines = [line.replace(f"--silence {cause}", option) for line in terminal(result)]
            print("\n".join(lines), flush=True)
            LogSnapshot(trainer).text("doctor", "\n".join(f"    {line}" for line in lines))
        return bool(counts)
