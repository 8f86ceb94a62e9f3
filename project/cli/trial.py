"""Try the remedy of an alarm: short trainings without files, with it, without it, and with a tenth of the rate."""

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer

from project.cli.cli import run
from project.cli.doctor import TRAINER, Doctor
from project.cli.error_handling import raise_errors
from project.cli.named_callbacks import default_callbacks
from project.doctor.training_checks import planned
from project.errors import RunError

NO_TRIAL = (DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer)
LR = "model.optimizer.lr"
FEW = 10  # steps of a training that only measures the time
LEAST_STEPS = 30  # of a training that says anything
SEEDS = 3
WORDS = {
    "confirmed": "Confirmed: the remedy beats the others by more than the spread.",
    "not confirmed": "Not confirmed: the remedy does not beat all others by more than the spread.",
    "no difference": "No difference seen; perhaps the trainings are too short for it, see --minutes.",
}


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


class ShortFit(Doctor):
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


class Result(NamedTuple):
    """The result of a short training."""

    accuracy: float  # on val
    images: int  # of val
    lr: float | None  # of the config
    planned: int  # optimizer steps of the whole training
    steps: int
    seconds: float  # that the steps took


def train(args: list[str], options: dict[str, Any], seed: int, steps: int) -> Result:
    """Train with the options of ``fit`` in ``args``, of which some are changed."""

    class Timed(ShortFit):
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
    lapse, lr = cli.lapse, cli.config["fit"].get("model.init_args.optimizer.init_args.lr")
    images = len(cli.datamodule.datasets["val"])
    return Result(cli.metrics["val/acc"], images, lr, lapse.planned, cli.trainer.global_step, lapse.seconds)


def try_remedy(args: list[str], result: dict[str, Any], minutes: float) -> str:
    """Try the remedy of a result of doctor, add to its alarm what the remedy did, and return it in words."""
    if not result["alarms"]:
        return "Nothing to try: there is no alarm."
    alarm = result["alarms"][0]
    try:
        alarm["tried"] = treat(lambda *arguments: train(args, *arguments), alarm["remedy"], minutes)
    except Exception as error:  # a changed option can fail in any way; the diagnosis stands
        reason = f"{error}" if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        alarm["tried"] = {"verdict": "not tried", "says": f"Not tried: {reason[:300].rstrip('.')}."}
    return str(alarm["tried"]["says"])


def treat(train: Callable[..., Result], remedy: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Return what a remedy, an option and its value, does to the accuracy on val within some minutes.

    ``train`` trains with changed options, a seed, and some steps. Raises RunError if the remedy cannot be tried.
    """
    if "option" not in remedy:
        raise RunError("the remedy is not an option")
    begin, scores = time.monotonic(), dict[str, list[float]]()
    try:
        first = train({}, 0, FEW)
        arms = arms_of(remedy, first.lr)
        steps = steps_of(first, time.monotonic() - begin, SEEDS * len(arms), minutes)
        print(f"Trying --{remedy['option']} {remedy['value']} in {SEEDS * len(arms)} trainings of {steps} steps ...")
        scores = {arm: [] for arm in arms}
        for seed, arm in product(range(SEEDS), arms):
            scores[arm].append(train(arms[arm], seed, steps).accuracy)
    except KeyboardInterrupt:
        if min(map(len, scores.values()), default=0) < 2:
            raise RunError("interrupted before two trainings of each kind") from None
    spent = round((time.monotonic() - begin) / 60, 2)
    return {"minutes": spent, "steps": steps, "options": arms} | judge(scores, first.images)


def arms_of(remedy: dict[str, Any], lr: float | None) -> dict[str, dict[str, Any]]:
    """Return the changed options of each kind of training.

    The control, a tenth of the learning rate, helps against many causes; a remedy that knows the cause does better.
    There is no control for a remedy that itself lowers the learning rate.
    """
    arms: dict[str, dict[str, Any]] = {"remedy": {remedy["option"]: remedy["value"]}, "untreated": {}}
    if lr and not (remedy["option"] == LR and float(remedy["value"]) < lr):
        arms["control"] = {LR: lr / 10}
    return arms


def steps_of(first: Result, seconds: float, trainings: int, minutes: float) -> int:
    """Return how many steps each of some trainings can have; raise RunError if they are too few.

    ``first`` had few steps, and took ``seconds`` with its preparation and validation.
    """
    step, fixed = first.seconds / max(first.steps, 1), seconds - first.seconds
    steps = min(int(((60 * minutes - seconds) / trainings - fixed) / step), first.planned)
    if steps < min(LEAST_STEPS, first.planned):
        needed = math.ceil((seconds + trainings * (fixed + LEAST_STEPS * step)) / 6 + 1) / 10
        raise RunError(f"{minutes:g} minutes are too few for {LEAST_STEPS} steps; use --minutes {needed}")
    return steps


def judge(scores: dict[str, list[float]], images: int) -> dict[str, Any]:
    """Return whether a remedy is better than all other trainings of the same seeds.

    The spread is half the 95 % interval of a difference of means, from the pooled variance over seeds, but at least the
    standard error of an accuracy, because seeds do not change the validation images.
    """
    seeds = min(map(len, scores.values()))
    scores = {arm: values[:seeds] for arm, values in scores.items()}
    means = {arm: statistics.fmean(values) for arm, values in scores.items()}
    variance = statistics.fmean(map(statistics.variance, scores.values()))
    quantile = 2 + 4.5 / (len(scores) * (seeds - 1))  # about that of Student's t at 97.5 %, or above it
    spread = max(quantile * math.sqrt(2 * variance / seeds), 0.5 / math.sqrt(max(images, 1)))
    effects = {arm: means["remedy"] - mean for arm, mean in means.items() if arm != "remedy"}
    verdict = "confirmed" if min(effects.values()) > spread else "not confirmed"
    if abs(effects["untreated"]) <= spread:
        verdict = "no difference"
    shown = ", ".join(f"{arm} {mean:.1%}" for arm, mean in means.items())
    says = f"val/acc after {seeds} trainings each: {shown} (spread {spread:.1%})."
    says += "" if "control" in scores else " No control, because the remedy itself lowers the learning rate."
    numbers = {"seeds": seeds, "scores": scores, "effect": effects["untreated"], "spread": spread}
    return {"verdict": verdict, **numbers, "says": f"{says}\n{WORDS[verdict]}"}
