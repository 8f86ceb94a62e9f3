"""Try the remedy of an alarm: short trainings with it, without it, and with a tenth of the learning rate instead."""

import math
import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

LR = "model.optimizer.lr"
FEW = 10  # steps of a training that only measures the time
LEAST_STEPS = 30  # of a training that says anything
SEEDS = 3
WORDS = {
    "confirmed": "Confirmed: the remedy beats the others by more than the spread.",
    "not confirmed": "Not confirmed: the remedy does not beat all others by more than the spread.",
    "no difference": "No difference seen; perhaps the trainings are too short for it, see --minutes.",
}


class Training(NamedTuple):
    """The result of a short training."""

    accuracy: float  # on val
    images: int  # of val
    lr: float | None  # of the config
    planned: int  # optimizer steps of the whole training
    steps: int
    seconds: float  # that the steps took


Train = Callable[[dict[str, Any], int, int], Training]  # of changed options, seed, and steps


def treat(train: Train, remedy: dict[str, Any], minutes: float, announce: Callable[[str], None]) -> dict[str, Any]:
    """Return what a remedy, an option and its value or a text, does to the accuracy on val within some minutes."""
    if "option" not in remedy:
        return not_tried("the remedy is not an option")
    begin, scores = time.monotonic(), dict[str, list[float]]()
    try:
        first = train({}, 0, FEW)
        arms = arms_of(remedy, first.lr)
        steps, needed = plan(first, time.monotonic() - begin, SEEDS * len(arms), minutes)
        if steps < min(LEAST_STEPS, first.planned):
            return not_tried(f"{minutes:g} minutes are too few for {LEAST_STEPS} steps; use --minutes {needed}")
        announce(f"Trying --{remedy['option']} {remedy['value']} in {SEEDS * len(arms)} trainings of {steps} steps ...")
        scores = {arm: [] for arm in arms}
        for seed, arm in product(range(SEEDS), arms):
            scores[arm].append(train(arms[arm], seed, steps).accuracy)
    except KeyboardInterrupt:
        if min(map(len, scores.values()), default=0) < 2:
            return not_tried("interrupted before two trainings of each kind")
    except Exception as error:  # a changed option can fail in any way; the diagnosis stands
        return not_tried(f"{type(error).__name__}: {error}"[:300])
    spent = round((time.monotonic() - begin) / 60, 2)
    return {"minutes": spent, "steps": steps, "options": arms} | judge(scores, first.images)


def not_tried(reason: str) -> dict[str, Any]:
    """Return the result without trainings."""
    return {"verdict": "not tried", "says": f"Not tried: {reason}."}


def arms_of(remedy: dict[str, Any], lr: float | None) -> dict[str, dict[str, Any]]:
    """Return the changed options of each kind of training.

    The control, a tenth of the learning rate, helps against many causes; a remedy that knows the cause does better.
    There is no control for a remedy that itself lowers the learning rate.
    """
    arms: dict[str, dict[str, Any]] = {"remedy": {remedy["option"]: remedy["value"]}, "untreated": {}}
    if lr and not (remedy["option"] == LR and float(remedy["value"]) < lr):
        arms["control"] = {LR: lr / 10}
    return arms


def plan(first: Training, seconds: float, trainings: int, minutes: float) -> tuple[int, float]:
    """Return the steps of each of some trainings, and the minutes that ``LEAST_STEPS`` would need.

    A first training of a few steps took ``seconds`` with its preparation and validation.
    """
    step, fixed = first.seconds / max(first.steps, 1), seconds - first.seconds
    steps = ((60 * minutes - seconds) / trainings - fixed) / step
    needed = seconds + trainings * (fixed + LEAST_STEPS * step)
    return min(int(steps), first.planned), math.ceil(needed / 6 + 1) / 10


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
    return {
        "verdict": verdict,
        "seeds": seeds,
        "scores": scores,
        "effect": effects["untreated"],
        "spread": spread,
        "says": f"{says}\n{WORDS[verdict]}",
    }
