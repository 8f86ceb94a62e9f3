"""Short trainings without files, with which ``doctor`` tries a remedy."""

import logging
import time
import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer

from project.cli.cli import run
from project.cli.doctor import TRAINER, Doctor
from project.cli.error_handling import raise_errors
from project.cli.named_callbacks import default_callbacks
from project.doctor.training_checks import planned
from project.doctor.treatment import Training, treat
from project.errors import RunError

NO_TRIAL = (DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer)


class TimeLapse(Callback):
    """Train for some steps with the learning rates of the whole training in time lapse, and measure the time."""

    def __init__(self, steps: int) -> None:
        self.steps, self.seconds = steps, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.plan, self.planned = planned(trainer), int(min(trainer.estimated_stepping_batches, 10**9))
        self.begin = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if len(self.plan) > 1:  # otherwise, the length is unknown
            rows = self.plan[min(trainer.global_step, self.steps - 1) * len(self.plan) // self.steps]
            for group, row in zip(trainer.optimizers[0].param_groups, rows, strict=True):
                group.update(row)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.seconds = time.monotonic() - self.begin
        if trainer.global_step >= self.steps:
            trainer.should_stop = True


class Trial(Doctor):
    """``fit`` without a run directory, checkpoints, logs, pictures and early stopping; it ends with a validation."""

    replaced = TRAINER
    lapse: TimeLapse

    def callbacks_of(self, config: dict[str, Any]) -> list[Callback]:
        if config["limit_val_batches"] == 0:
            raise RunError("Expected validation images to try a remedy, but --trainer.limit_val_batches is 0.")
        named = vars(self.config_init["fit"].get("callbacks") or {})
        own = [each for name, each in named.items() if name not in default_callbacks()] + (config["callbacks"] or [])
        own = [each for each in own if isinstance(each, Callback) and not isinstance(each, NO_TRIAL)]
        return [*own, self.lapse]

    def after_fit(self) -> None:
        """Validate."""
        self.metrics = self.trainer.validate(self.model, self.datamodule, verbose=False)[0]


def train(args: list[str], options: dict[str, Any], seed: int, steps: int) -> Training:
    """Train with the options of ``fit`` in ``args``, of which some are changed."""

    class Timed(Trial):
        lapse = TimeLapse(steps)

    changed = [f"--{name}={value}" for name, value in options.items()]
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            cli: Any = run(["fit", *args, *changed, f"--seed_everything={seed}"], Timed, raise_errors)
    finally:
        logging.disable(logging.NOTSET)
    if "val/acc" not in cli.metrics:
        raise RunError("expected a module that logs val/acc")
    return Training(
        cli.metrics["val/acc"],
        images=len(cli.datamodule.datasets["val"]),
        lr=cli.config["fit"].get("model.init_args.optimizer.init_args.lr"),
        planned=cli.lapse.planned,
        steps=cli.trainer.global_step,
        seconds=cli.lapse.seconds,
    )


def try_remedy(args: list[str], result: dict[str, Any], minutes: float) -> str:
    """Try the remedy of a result of doctor, add to its alarm what the remedy did, and return it in words."""
    if not result["alarms"]:
        return "Nothing to try: there is no alarm."
    alarm = result["alarms"][0]
    alarm["tried"] = treat(lambda *arguments: train(args, *arguments), alarm["remedy"], minutes, print)
    return str(alarm["tried"]["says"])
