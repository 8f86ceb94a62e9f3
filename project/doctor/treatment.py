"""Try the remedy of an alarm: short trainings with it, without it, and with a tenth of the learning rate instead."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

LR = "model.optimizer.lr"
LEAST_STEPS = 30  # of a training that says anything
SEEDS, MOST_SEEDS = 2, 5
WORDS = {
    "confirmed": "Confirmed: the remedy beats the others by more than the spread.",
    "not confirmed": "Not confirmed: the remedy does not beat all others by more than the spread.",
    "no difference": "No difference seen in {minutes:.1f} minutes; perhaps the trainings are too short for it.",
}


class Training(NamedTuple):
    """The result of a short training.

    Attributes:
        score: Accuracy on val, or the negative loss on val if there is no accuracy.
        metric: "val/acc" or "val/loss".
        steps: Optimizer steps.
        planned: Optimizer steps of the whole training.
        seconds: How long the steps took.
        images: Validation images.
        lr: Learning rate of the config; None without one.
    """

    score: float
    metric: str
    steps: int
    planned: int
    seconds: float
    images: int
    lr: float | None


Train = Callable[[dict[str, Any], int, int | None], Training]  # of changed options, seed, and steps; None for a few


def treat(train: Train, remedy: dict[str, Any], minutes: float, announce: Callable[[str], None]) -> dict[str, Any]:
    """Return what a remedy does to the accuracy on val, as ``tried`` of doctor.json.

    Args:
        train: Trains with changed options, a seed and a number of steps.
        remedy: Option and value, or a text.
        minutes: Time for all trainings.
        announce: Prints what is tried.
    """
    if "option" not in remedy:
        return {"verdict": "not tried", "says": "Not tried: the remedy is not an option."}
    begin, scores = time.monotonic(), dict[str, list[float]]()
    try:
        first = train({}, 0, None)
        arms = arms_of(remedy, first.lr)
        steps, seeds, needed = plan(first, time.monotonic() - begin, len(arms), minutes)
        if steps < min(LEAST_STEPS, first.planned):
            says = f"Not tried: {minutes:g} minutes are too few for {LEAST_STEPS} steps. Use --minutes {needed}."
            return {"verdict": "not tried", "says": says}
        announce(f"Trying --{remedy['option']} {remedy['value']} in {len(arms) * seeds} trainings of {steps} steps ...")
        scores = {arm: [] for arm in arms}
        for seed in range(seeds):
            if seed >= SEEDS and time.monotonic() - begin > 60 * minutes * seed / (seed + 1):
                break
            for arm, options in arms.items():
                scores[arm].append(train(options, seed, steps).score)
    except KeyboardInterrupt:
        if min(map(len, scores.values()), default=0) < SEEDS:
            return {"verdict": "not tried", "says": "Not tried: interrupted before two trainings of each kind."}
    except Exception as error:  # a changed option can fail in any way; the diagnosis stands
        return {"verdict": "not tried", "says": f"Not tried: {type(error).__name__}: {error}"[:300]}
    spent = (time.monotonic() - begin) / 60
    return {
        "minutes": round(spent, 2),
        "steps": steps,
        "metric": first.metric,
        "options": arms,
    } | judge(scores, first.metric, first.images, spent)


def arms_of(remedy: dict[str, Any], lr: float | None) -> dict[str, dict[str, Any]]:
    """Return the changed options of each kind of training.

    The control, a tenth of the learning rate, helps against many causes; a remedy that knows the cause does better.
    There is no control for a remedy that itself lowers the learning rate.
    """
    arms: dict[str, dict[str, Any]] = {"remedy": {remedy["option"]: remedy["value"]}, "untreated": {}}
    if lr and not (remedy["option"] == LR and float(remedy["value"]) < lr):
        arms["control"] = {LR: lr / 10}
    return arms


def plan(first: Training, seconds: float, arms: int, minutes: float) -> tuple[int, int, float]:
    """Return the steps of each training, the number of seeds, and the minutes that the least steps need.

    Args:
        first: A training of a few steps.
        seconds: How long it took, with its preparation and validation.
        arms: Kinds of training.
        minutes: Time for all trainings.
    """
    step, fixed = first.seconds / max(first.steps, 1), seconds - first.seconds
    left = 60 * minutes - seconds
    steps = min(int((left / (arms * SEEDS) - fixed) / step), first.planned)
    seeds = int(left / (arms * (fixed + max(steps, 1) * step)))
    needed = seconds + arms * SEEDS * (fixed + LEAST_STEPS * step)
    return steps, min(max(seeds, SEEDS), MOST_SEEDS), math.ceil(needed / 6 + 1) / 10


def judge(scores: dict[str, list[float]], metric: str, images: int, minutes: float) -> dict[str, Any]:
    """Return whether a remedy is better than all other trainings of the same seeds.

    The spread is half the 95 % interval of a difference of means, from the pooled variance over seeds, but at least the
    standard error of an accuracy (of a loss: a hundredth), because seeds do not change the validation images.
    """
    seeds = min(map(len, scores.values()))
    finite = [value for values in scores.values() for value in values if math.isfinite(value)]
    worst = min(finite, default=0.0)  # of a training that diverged
    scores = {arm: [v if math.isfinite(v) else worst for v in values[:seeds]] for arm, values in scores.items()}
    means = {arm: statistics.fmean(values) for arm, values in scores.items()}
    floor = 0.5 / math.sqrt(max(images, 1)) if metric == "val/acc" else abs(means["untreated"]) / 100
    variance = statistics.fmean(statistics.variance(values) for values in scores.values())
    quantile = 2 + 4.5 / (len(scores) * (seeds - 1))  # about that of Student's t at 97.5 %, or above it
    spread = max(quantile * math.sqrt(2 * variance / seeds), floor)
    effects = {arm: means["remedy"] - mean for arm, mean in means.items() if arm != "remedy"}
    verdict = "confirmed" if min(effects.values()) > spread else "not confirmed"
    if abs(effects["untreated"]) <= spread:
        verdict = "no difference"
    shown = ", ".join(f"{arm} {number(abs(mean), metric)}" for arm, mean in means.items())
    says = f"{metric} after {seeds} trainings each: {shown} (spread {number(spread, metric)})."
    says += "" if "control" in scores else " No control, because the remedy itself lowers the learning rate."
    return {
        "verdict": verdict,
        "seeds": seeds,
        "scores": scores,
        "effect": effects["untreated"],
        "effect_beside_control": effects.get("control"),
        "spread": spread,
        "says": f"{says}\n{WORDS[verdict].format(minutes=minutes)}",
    }


def number(value: float, metric: str) -> str:
    """Return an accuracy in percent, or a loss."""
    return f"{100 * value:.1f} %" if metric == "val/acc" else f"{value:.3g}"
