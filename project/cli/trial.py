"""Short trainings without files, with which ``doctor`` tries a remedy."""

import logging
import math
import time
import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer

from project.cli.cli import run
from project.cli.doctor import Doctor
from project.cli.error_handling import raise_errors
from project.cli.named_callbacks import default_callbacks
from project.doctor.treatment import Training, treat
from project.errors import RunError

FEW, LONG = 10, 20.0  # steps, or seconds, of a training that only measures the time
NO_TRIAL = (DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer)


class Clock(Callback):
    """Measure the time of training, and end it after a few steps if it has no given number of them."""

    def __init__(self, steps: int | None) -> None:
        self.steps, self.seconds = steps, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.seconds = time.monotonic() - self.begin
        if self.steps is None and (trainer.global_step >= FEW or self.seconds > LONG):
            trainer.should_stop = True


class Trial(Doctor):
    """``fit`` without a run directory, checkpoints, logs, pictures and early stopping; it ends with a validation."""

    clock: Clock

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "fast_dev_run"), False
        )
        quiet |= {"num_sanity_val_steps": 0, "min_epochs": None, "min_steps": None, "max_time": None}
        one = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None}
        if config["limit_val_batches"] == 0:
            raise RunError("Expected validation images to try a remedy, but --trainer.limit_val_batches is 0.")
        named = vars(self.config_init["fit"].get("callbacks") or {})
        own = [each for name, each in named.items() if name not in default_callbacks()] + (config["callbacks"] or [])
        own = [each for each in own if isinstance(each, Callback) and not isinstance(each, NO_TRIAL)]
        return Trainer(**config | quiet | one | {"callbacks": [*own, self.clock, self.stopper]})

    def after_fit(self) -> None:
        """Validate."""
        self.planned = int(min(self.trainer.estimated_stepping_batches, 10**9))
        self.steps = self.trainer.global_step
        self.metrics = self.trainer.validate(self.model, self.datamodule, verbose=False)[0]


def train(args: list[str], options: dict[str, Any], seed: int, steps: int | None) -> Training:
    """Train with options of ``fit`` for some steps.

    Args:
        args: Options of ``doctor``.
        options: Options to change.
        seed: Seed of weights, order and augmentation.
        steps: Number of steps; None for a few.
    """

    class Timed(Trial):
        clock = Clock(steps)

    length = [] if steps is None else [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"]
    changed = [f"--{name}={value}" for name, value in options.items()]
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            cli: Any = run(["fit", *args, *changed, f"--seed_everything={seed}", *length], Timed, raise_errors)
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
    metric = next(name for name in ("val/acc", "val/loss") if name in cli.metrics)
    score = cli.metrics[metric] if metric == "val/acc" else -cli.metrics[metric]
    images = len(cli.datamodule.datasets["val"])
    lr = cli.config["fit"].get("model.init_args.optimizer.init_args.lr")
    return Training(
        score if math.isfinite(score) else -math.inf, metric, cli.steps, cli.planned, cli.clock.seconds, images, lr
    )


def try_remedy(args: list[str], result: dict[str, Any], minutes: float) -> str:
    """Try the remedy of the alarm of a result, add what it did to the alarm, and return it in words.

    Args:
        args: Options of ``fit``, with which the run was started.
        result: Content of doctor.json.
        minutes: Time for all trainings.
    """
    if not result["alarms"]:
        return "Nothing to try: there is no alarm."
    alarm = result["alarms"][0]
    alarm["tried"] = treat(lambda *arguments: train(args, *arguments), alarm["remedy"], minutes, print)
    return str(alarm["tried"]["says"])
