"""Symptoms: which facts are outside their healthy range, and how far."""

import math
from pathlib import Path
from typing import Any, NamedTuple

Facts = dict[str, Any]
EPOCHS, STEPS = 3, 100  # before which learning is not judged, and nothing is called healthy
READABLE = 4  # deviations by which linear classifiers of pixels beat guessing, from which labels belong to images
COPIED = 0.1  # share of val with the pixels of training images, from which it is an alarm
SUM = 1.8  # ratio of the loss of twice the batch from which it is a sum


class Symptom(NamedTuple):
    """A healthy range of a fact: up to ``healthy``, or from it upwards if ``ill`` is below it."""

    fact: str
    healthy: float  # strength 0
    ill: float  # strength 1
    scale: str  # "log" to interpolate between logarithms
    meaning: str  # of the number, or what is usual


def table(title: str) -> list[list[str]]:
    """Return the cells of the rows of a table of ``causes.md``.

    Raises:
        ValueError: A row has more or fewer cells than the first line of the table.
    """
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.strip().startswith("|")]
    head, _, *rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"causes.md: Expected {len(head)} cells, but got {len(row)} in: | {' | '.join(row)} |")
    return rows


PAGE = Path(__file__).with_name("causes.md").read_text(encoding="utf-8")
SYMPTOMS = {
    name: Symptom(fact, float(healthy), float(ill), scale, meaning)
    for name, fact, healthy, ill, scale, meaning in table("Symptoms")
}


class Known(Facts):
    """Facts by name; one that was not measured is NaN, and so is what is computed from it."""

    def __missing__(self, name: str) -> float:
        return math.nan


def symptoms(facts: Facts) -> dict[str, float]:
    """Return the strength of each symptom whose fact is known, from 0, healthy, to 1, clearly sick."""
    values = complete(facts)
    known = {name: each for name, each in SYMPTOMS.items() if not math.isnan(values[each.fact])}
    return {name: strength(values[each.fact], each) for name, each in known.items()}


def strength(value: float, limits: Symptom) -> float:
    """Return 0 at the healthy end of a range, 1 at the other, and values between them in proportion."""
    healthy, ill = limits.healthy, limits.ill
    if limits.scale == "log":
        value, healthy, ill = (math.log(max(each, 1e-12)) for each in (value, healthy, ill))
    return min(max((value - healthy) / (ill - healthy), 0.0), 1.0)


def complete(facts: Facts) -> Known:
    """Return facts with those that follow from them."""
    f = Known((name, value) for name, value in facts.items() if value is not None)
    chance, val_acc, linear_z = f["chance"], f["val_acc"], f["linear_gap_z"]
    train_accs, val_accs, train_losses, val_losses, pairs, gaps = (
        facts.get(name) or []
        for name in ("train_accs", "val_accs", "train_losses", "val_losses", "train_and_val_accs", "batch_stat_gaps")
    )
    as_val: Any = facts.get("eval_transform_acc", f["plain_acc"])  # of training images
    as_train = f["train_transform_val_acc"]  # of val
    per_image = [1 / (facts.get(name) or 512) for name in ("probe_images", "probe_val_images")]

    def best(*accuracies: float) -> float:
        return max((each for each in accuracies if not math.isnan(each)), default=math.nan)

    def skill(acc: float) -> float:
        """Return an accuracy on a scale from 0, guessing, to 1."""
        return max(acc - chance, 0.0) / max(1 - chance, 1e-9)

    def log_skill(acc: float) -> float:
        return math.log(max(acc / chance, 1)) / -math.log(min(chance, 0.99))

    def share(part: float, whole: float, least: float = 0.1) -> float:
        return part / whole if whole >= least else math.nan

    linear_train, linear_val = facts.get("linear_skills") or (math.nan, math.nan)
    guessing = f["prior_loss"] if facts.get("loss_of_twice_the_batch", 1.0) < SUM else math.nan  # a sum says nothing
    gain = f["permuted_acc"] - val_acc
    linear_acc = linear_val + (1 - linear_val) / facts.get("classes", math.nan)
    planned, steps = facts.get("planned_epochs") or -1, facts.get("steps", 0)  # -1 without a limit
    is_over = facts.get("epochs", 0) >= (min(EPOCHS, planned) if planned > 0 else EPOCHS) and steps >= STEPS
    f |= {
        "linear_acc": linear_acc,
        "unit_interval": 0.0 if facts.get("rectified") else f["unit_interval"],  # small outputs of a ReLU
        # pixels that a linear classifier reads need no other features
        "readable_z": facts.get("readable_z", f["linear_z"] if f["linear_z"] >= READABLE else math.nan),
        "trained": f["progress"] if is_over else math.nan,
        # fewer exact copies do not exclude other ones, for which only the examination before training looks
        "near_duplicates": facts.get("near_duplicates", f["val_copies"] if f["val_copies"] > COPIED else math.nan),
        "val_rise_z": rise_z(val_accs, 1 / (facts.get("val_images") or 1000) ** 0.5),
        "sharpness_ratio": max(f["val_sharpness"], 1 / f["val_sharpness"]) if f["val_sharpness"] > 0 else math.nan,
        "epochs_to_fit": min((epoch for epoch, acc in enumerate(train_accs, 1) if skill(acc) > 0.9), default=math.nan),
        "linear_share": share(linear_val, linear_train),
        "permutation_gain": gain,
        "permutation_z": gain / (facts.get("classes", 1) * per_image[1]) ** 0.5,
        "gradient_spikes": share(f["grad_norm_p99"], f["grad_norm_median"], 1e-12),
        "loss_peak": share(f["largest_loss"] * facts.get("accumulated", 1), guessing, 1e-12),
        "val_loss_peak": share(max(val_losses, default=0.0), guessing, 1e-4),
        "batch_stat_gap": min(gaps) if len(gaps) == 3 and facts.get("steps", 0) >= 100 else math.nan,
    }
    if facts.get("epochs", 0) < EPOCHS:
        f["rare_gap"] = math.nan
        return f
    train_acc, in_training = best(*train_accs[-1:], f["plain_acc"], as_val), best(*train_accs[-1:])
    of_probe = facts.get("probe_epoch", planned - 1)  # balanced batches do not have the images of an epoch
    is_known = 0 <= of_probe < len(train_accs) and steps >= STEPS and not facts.get("balanced")
    step_acc = train_accs[of_probe] if is_known else math.nan
    reached = val_acc if f["progress"] >= 1 else best(val_acc, *val_accs)
    lead_of_linear = (linear_acc - reached) / deviation(linear_acc, reached, [per_image[1]] * 2)
    leads = [((v - t) / deviation(t, v, per_image), 1 - share(skill(t), skill(v))) for t, v in pairs]
    lead, noise = max(leads, key=lambda each: each[0], default=(math.nan, math.nan))
    late = train_losses[len(train_losses) // 3 :] if len(train_losses) >= 8 and facts.get("steps", 0) >= 1000 else []
    f |= {
        "eval_transform_loss": f["plain_acc"] - f["eval_transform_acc"],
        "linear_lead_z": math.nan if f["layers"] == 1 else lead_of_linear,  # one layer is linear itself
        "step_acc": step_acc,
        "eval_lag_z": (step_acc - f["plain_acc"]) / deviation(step_acc, f["plain_acc"], [0.0, per_image[0]]),
        "train_skill": skill(train_acc),
        "learned": log_skill(train_acc),
        "best_learned": log_skill(best(train_acc, *train_accs, *(of_train for of_train, _ in pairs))),
        "val_share": share(skill(best(val_acc, f["batch_stat_acc"], as_train)), skill(train_acc)),
        "augmented_share": share(skill(as_train), skill(val_acc)),
        "transform_gain": as_train - val_acc,
        "train_mode_share": share(skill(in_training), skill(f["plain_acc"] if math.isnan(as_train) else as_train)),
        "val_gap": as_val - val_acc,
        "val_gap_z": (as_val - val_acc) / deviation(as_val, val_acc, per_image),
        # before they are memorised; a linear classifier does not memorise
        "val_lead_z": lead if math.isnan(linear_z) else max((lead - linear_z) / 2**0.5, lead, -linear_z),
        "noise_share": 1 - share(linear_train, linear_val) if math.isnan(noise) else noise,
        "val_loss_rise": rise(val_losses, val_accs, guessing),
        "late_progress": (late[0] - late[-1]) / max(abs(late[0]), 1e-12) if late else math.nan,
    }
    return f


def deviation(first: float, second: float, per_image: list[float]) -> float:
    """Return the standard deviation of the difference of two accuracies, given one by the number of images of each."""
    mean = (first * per_image[1] + second * per_image[0]) / sum(per_image)
    return max(mean * (1 - mean), 0.01) ** 0.5 * sum(per_image) ** 0.5


def rise_z(accs: list[float], noise: float) -> float:
    """Return by how many deviations the last quarter of the epochs raised an accuracy."""
    before = accs[: -max(len(accs) // 4, 1)]
    return (accs[-1] - max(before)) / noise if before else math.nan


def rise(losses: list[float], accs: list[float], guessing: float) -> float:
    """Return by which factor a loss exceeds its minimum, if that was at least three epochs ago; otherwise 1.

    While accuracy still rises, it is also 1 unless the loss is above that of guessing: then, it only shows that a few
    wrong answers are overconfident.
    """
    if len(losses) <= EPOCHS or not min(losses) > 0:
        return math.nan
    if accs and max(accs[-EPOCHS:]) >= max(accs) and not losses[-1] >= guessing:
        return 1.0
    return losses[-1] / min(losses) if losses.index(min(losses)) < len(losses) - EPOCHS else 1.0
