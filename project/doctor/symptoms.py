"""Symptoms: which facts are outside their healthy range, and how far."""

import math
from typing import Any, NamedTuple

Facts = dict[str, Any]
EPOCHS = 3  # before which learning is not judged
SUM = 1.8  # ratio of the loss of twice the batch from which it is a sum
STEPS = 1000  # before which a network is not called too small


class Range(NamedTuple):
    """A healthy range of a fact: up to ``healthy``, or from it upwards if ``sick`` is below it."""

    fact: str
    healthy: float  # strength 0
    sick: float  # strength 1
    reason: str
    log: bool = False  # interpolate between logarithms


# All limits, set on healthy runs and planted faults, and frozen on 2026-11-28 at 12:50 UTC, before further networks and
# data were tried; augmentation_destroys was then widened. A skill is an accuracy from 0, guessing, to 1, perfect.
RANGES = {
    # data and labels
    "constant_images": Range("constant_images", 0.002, 0.02, "a few broken files are usual"),
    "conflicting_labels": Range("conflicting_duplicates", 0.002, 0.02, "a few are natural"),
    "near_duplicates": Range("near_duplicates", 0.05, 0.15, "CIFAR-10's test images have 3.3 % (ciFAIR)"),
    "separable_splits": Range("split_accuracy", 0.57, 0.68, "of guessing the split; .5 for random splits"),
    "imbalanced": Range("imbalance", 5, 20, "a factor of 2 or 3 is harmless", log=True),
    "rare_classes_missed": Range("rare_missed", 0.1, 0.3, "accuracy; classes differ by some points"),
    "fast_fit": Range("epochs_to_fit", 8, 3, "until a skill of .9 on training images; memorising takes longer"),
    "val_fails": Range("val_share", 0.65, 0.35, "of the skill on training images; .9 is usual"),
    "val_at_chance": Range("chance_z", 3, 1.5, "deviations by which val is above chance, if classes are renamed"),
    "above_chance": Range("chance_z", 1, 2.5, "the same"),
    "train_ahead": Range("val_gap_z", 2, 4, "deviations by which training images are recognised better than val"),
    "val_ahead": Range("val_lead_z", 2.4, 4.2, "the reverse, in any epoch; val is better if training labels are wrong"),
    "many_errors": Range("noise_share", 0.1, 0.3, "of the skill on val that is missing on training images"),
    "readable_labels": Range("linear_z", 4, 8, "deviations by which linear classifiers are above chance"),
    "linear_on_train_only": Range("linear_gap_z", 3, 6, "deviations by which they are better on train than on val"),
    "linear_val_fails": Range("linear_share", 0.6, 0.3, "of their skill on train that they have on val"),
    "permuted": Range("permutation_gain", 0.05, 0.25, "accuracy that renaming the classes of val adds"),
    "permuted_clearly": Range("permutation_z", 1.4, 2.8, "the same, in deviations of a class; chance adds about 1"),
    "swapped": Range("swapped_z", 0.9, 1.5, "how clearly two classes are taken for each other; 1 happens by chance"),
    "moved": Range("moved_z", 2.5, 4.5, "deviations by which one class of train lacks images that another has"),
    "moved_are_confused": Range("moved_share", 0.15, 0.35, "of the former is predicted as the latter"),
    # input and augmentation
    "nonfinite_images": Range("nonfinite_images", 0, 1e-6, "NaN spreads to all weights in one step"),
    "val_pixels_differ": Range("val_pixel_shift", 0.3, 0.6, "standard deviations; below .1 for a random split"),
    "eval_transforms_hurt": Range("eval_transform_loss", 0.1, 0.2, "accuracy; 0 for a resize and crop"),
    "large_inputs": Range("pixel_std", 1.6, 2.4, "1 if normalised, below .5 if scaled to 0..1"),
    "blank": Range("pixel_std", 1e-4, 1e-6, "0 for erased images", log=True),
    "small_inputs": Range("pixel_std", 0.05, 0.01, "1 if normalised, above .1 if scaled to 0..1", log=True),
    "augmentation_destroys": Range("augmented_information", 0.5, 0.25, "of a linear classifier's; .8 for crops"),
    "augmented_unreadable": Range("augmented_share", 0.5, 0.2, "of the skill on plain images; .9 is usual"),
    "transforms_help": Range("transform_gain", 0.05, 0.15, "accuracy; augmentation makes images harder"),
    # wiring
    "unregistered": Range("unregistered_values", 0, 1, "tensors that get gradients, but are no parameters"),
    "not_optimized": Range("not_optimized", 0, 0.01, "share of the network"),
    "frozen_random": Range("frozen_random", 0.3, 0.6, "a whitening layer is a few percent"),
    "no_gradient": Range("no_gradient", 0, 0.01, "share of the network; 0 after 5 steps, also with zero heads"),
    "loss_without_gradient": Range("loss_has_gradient", 1, 0, "0: nothing can be trained"),
    "mixes_images": Range("batch_dependence", 1e-3, 1e-2, "rounding is below 1e-4", log=True),
    "training_modules": Range("modules_in_training_mode", 0, 1, "none, after eval()"),
    "constant_outputs": Range("input_dependence", 1e-4, 1e-6, "after 5 steps, also with zero heads", log=True),
    "blind_pixels": Range("pixel_coverage", 0.6, 0.4, "1 for all networks of this project"),
    "affine": Range("affinity", 1e-3, 1e-5, "activations give more than .01", log=True),
    "single_layer": Range("layers", 2, 1, "softmax regression has one"),
    # initialization and activation
    "dead_at_start": Range("dead_at_start", 0.6, 0.9, "of all units, before training; .2 is usual"),
    "usual_weights": Range("weight_gain", 0.1, 0.3, ".6 for defaults, 1.4 for kaiming; relative to 1 / sqrt(inputs)"),
    "small_weights": Range("weight_gain", 0.3, 0.1, "the same"),
    "symmetric": Range("symmetric_layers", 0, 1, "after 5 steps, also with heads of zeros"),
    "large_first_loss": Range("first_loss_excess", 3, 10, "below 1 for all networks of this project"),
    "fading_signal": Range("signal_ratio", 1e-3, 1e-5, "above .01 for all networks of this project", log=True),
    "dead": Range("dead_share", 0.5, 0.9, "channels that are 0 for all images; .4 is harmless"),
    "saturated": Range("saturated_share", 0.3, 0.7, "of inputs of sigmoid and tanh"),
    # loss
    "loss_not_finite": Range("first_loss_finite", 1, 0, "the first loss is a number"),
    "nonfinite_steps": Range("nonfinite_steps", 0, 1, "steps whose loss is NaN or infinite"),
    "unit_outputs": Range("unit_interval", 0, 1, "logits of any sign are expected"),
    "rectified_outputs": Range("rectified", 0.05, 0.2, "logits of any sign are expected"),
    "bounded_below": Range("simplex_floor", 0.3, 0.45, "0 for losses of probabilities; .63 for cross-entropy of them"),
    "sure_floor": Range("sure_floor", 0.2, 0.4, "0 for losses of logits; .63 if the loss applies a softmax twice"),
    "little_range": Range("loss_range", 0.2, 0.08, ".57 with smoothing .2, .22 with .6"),
    "rewards_errors": Range("truth_gain", 0.05, -0.05, "2 for cross-entropy"),
    "sum_over_batch": Range("loss_of_twice_the_batch", 1.5, 1.9, "1 for means, 2 for sums"),
    "memorizes_wrongly": Range("memorized", 0.5, 0.1, "1 if the loss of the same images is gone"),
    # optimizer, in a trial
    "trial_fails": Range("trial_progress", 0.1, 0.0, "share of the loss that is removed; healthy trials exceed .5"),
    "nothing_learns": Range("adam_progress", 0.1, 0.0, "the same by Adam"),
    "lower_lr_learns": Range("lr_excess", 3, 10, "on few images, a healthy rate can be 3 times too high", log=True),
    "training_too_short_for_lr": Range("lr_shortfall", 3, 30, "trainings of the planned length", log=True),
    "uphill": Range("uphill", 0, 1, "the first step of all optimizers goes against the gradient"),
    "decay_off_learns": Range("repair_weight_decay", 0.3, 0.6, "the trial learns without weight decay"),
    "usual_eps_learns": Range("repair_eps", 0.3, 0.6, "the trial learns with eps 1e-8"),
    "clip_off_learns": Range("repair_clip", 0.3, 0.6, "the trial learns without clipping"),
    "high_momentum": Range("momentum", 0.985, 0.995, "OneCycle reaches .95"),
    "fast_decay": Range("decay_per_step", 0.03, 0.1, "airbench_sgd has .013, a ResNet .0003", log=True),
    # optimizer, in training
    "second_half": Range("progress", 0.4, 0.6, "of the training; at the peak of a schedule, it is unstable"),
    "underfits": Range("train_skill", 0.8, 0.4, "skill on training images; 0 is guessing, 1 is perfect"),
    "underfits_much": Range("train_skill", 0.5, 0.2, "skill on training images; 0 is guessing, 1 is perfect"),
    "not_learning": Range("learned", 0.28, 0.07, "log of accuracy relative to chance; 1 for perfect"),
    "never_learned": Range("best_learned", 0.28, 0.07, "the same of the best epoch"),
    "val_loss_exploded": Range("val_loss_peak", 20, 200, "times that of guessing, in any epoch", log=True),
    "large_updates": Range("update_ratio", 0.01, 0.1, "of the weights in a step; .001 to .02 is usual", log=True),
    "fine_tuned": Range("pretrained", 0, 1, "fine-tuning takes small steps"),
    "slow_updates": Range("update_ratio", 1e-3, 3e-5, "of the weights in a step; .001 to .02 is usual", log=True),
    "loss_exploded": Range("loss_peak", 1.5, 4, "times the loss of guessing", log=True),
    "gradient_spikes": Range("gradient_spikes", 5, 20, "99th percentile over median; 3 is usual", log=True),
    "loss_jumps": Range("loss_jump_share", 0.005, 0.02, "of all steps"),
    "clipped": Range("clipped_share", 0.3, 0.7, "of all steps; a clip is for outliers"),
    "scaler_skips": Range("scaler_skip_share", 0.02, 0.08, "of steps after step 200; one in 2000 is usual"),
    "unchanged": Range("unchanged_share", 0.2, 0.6, "of weights with a gradient"),
    "coarse_weights": Range("weight_eps", 1e-6, 1e-4, "1e-7 for 32-bit floats", log=True),
    "modes_differ": Range("train_mode_share", 0.7, 0.3, "of the skill in eval mode; .9 is usual"),
    "high_dropout": Range("dropout_rate", 0.5, 0.8, ".1 to .5 are usual"),
    # schedule, evaluation, and the whole training
    "late_peak": Range("peak_at", 0.5, 0.7, "OneCycle has .3"),
    "idle_half": Range("zero_in_first_half", 0.2, 0.6, "warm-ups of a few percent are usual"),
    "small_batches": Range("batch_norm_images", 8, 3, "batch norm is noisy with fewer images", log=True),
    "eval_noise": Range("eval_noise", 1e-3, 1e-2, "rounding is below 1e-4", log=True),
    "stale_statistics": Range("batch_stat_gap", 0.05, 0.15, "accuracy that statistics of batches add"),
    "memorized": Range("train_skill", 0.85, 0.97, "skill on training images; 0 is guessing, 1 is perfect"),
    "val_loss_rises": Range("val_loss_rise", 1.1, 1.5, "times its minimum, three epochs ago or more"),
    "val_behind": Range("val_gap", 0.05, 0.15, "accuracy on training images minus that on val"),
    "no_gap": Range("val_gap", 0.08, 0.02, "accuracy on training images minus that on val"),
    "few_directions": Range("output_rank", 0.9, 0.6, "in which outputs vary, of 8 or the classes less one"),
    "plateau": Range("late_progress", 0.1, 0.02, "fall of the training loss after the first third of the epochs"),
}


def symptoms(facts: Facts) -> dict[str, float]:
    """Return the strength of each symptom, 0 (healthy) to 1 (clearly sick), whose fact was measured."""
    facts = facts | training_facts(facts)
    values = {name: facts.get(limits.fact) for name, limits in RANGES.items()}
    return {name: strength(float(value), RANGES[name]) for name, value in values.items() if value is not None}


def training_facts(facts: Facts) -> Facts:
    """Return facts that follow from those of a training; what needs more epochs is missing."""
    chance, epochs = facts.get("chance"), facts.get("epochs", 0)
    get, train_accs, val_accs = facts.get, facts.get("train_accs") or [], facts.get("val_accs") or []

    def best(*accuracies: float | None) -> float | None:
        return max((each for each in accuracies if each is not None), default=None)

    def skill(*accuracies: float | None) -> float | None:
        """Return the best accuracy on a scale from 0, guessing, to 1."""
        acc = best(*accuracies)
        return None if acc is None or chance is None else max(acc - chance, 0.0) / max(1 - chance, 1e-9)

    def bits(acc: float | None) -> float | None:
        """Return an accuracy on a logarithmic scale from 0, guessing, to 1."""
        return None if acc is None or not chance else math.log(max(acc / chance, 1)) / -math.log(min(chance, 0.99))

    def minus(high: float | None, low: float | None) -> float | None:
        return None if high is None or low is None else high - low

    def share(part: float | None, whole: float | None, least: float = 0.1) -> float | None:
        return None if part is None or whole is None or whole < least else part / whole

    val_acc: Any = get("val_acc")
    as_val: Any = get("eval_transform_acc", get("plain_acc"))  # of training images
    classes = max(get("classes", 1), 1)
    gain = minus(get("permuted_acc"), val_acc)
    inverses = [1 / (get(name) or 512) for name in ("probe_images", "probe_val_images")]
    fitted = [number for number, acc in enumerate(train_accs, 1) if (skill(acc) or 0.0) > 0.9]
    linear_train, linear_val = get("linear_skills") or (None, None)
    linear, pairs = get("linear_gap_z"), get("train_and_val_accs") or []
    guessing = get("prior_loss") if get("loss_of_twice_the_batch", 1.0) < SUM else None  # that of a sum says nothing
    facts_now = {
        "epochs_to_fit": min(fitted, default=None),
        "linear_share": share(linear_val, linear_train),
        "permutation_gain": gain,
        "permutation_z": gain and gain / (classes * inverses[1]) ** 0.5,
        "gradient_spikes": share(get("grad_norm_p99"), get("grad_norm_median"), 1e-12),
        "val_loss_peak": share(max(get("val_losses") or [0.0]), guessing, 1e-4),
    }
    if epochs < EPOCHS:
        return {key: value for key, value in facts_now.items() if value is not None}
    losses, long = get("train_losses") or [], len(get("train_losses") or []) >= 8 and get("steps", 0) >= STEPS
    train_acc = best(*train_accs[-1:], get("plain_acc"), as_val)
    val = skill(val_acc, get("batch_stat_acc"), get("train_transform_val_acc"))
    gap = minus(as_val, val_acc)
    leads = [((v - t) / deviation(t, v, inverses), minus(1.0, share(skill(t), skill(v)))) for t, v in pairs]
    lead, noise_share = max(leads, key=lambda each: each[0], default=(None, None))
    later = {
        "eval_transform_loss": minus(get("plain_acc"), get("eval_transform_acc")),
        "rare_missed": get("rare_gap"),
        "train_skill": skill(train_acc),
        "learned": bits(train_acc),
        "best_learned": bits(best(train_acc, *train_accs, *(of_train for of_train, _ in pairs))),
        "val_share": share(val, skill(train_acc)),
        "augmented_share": share(skill(get("train_transform_val_acc")), skill(val_acc)),
        "transform_gain": minus(get("train_transform_val_acc"), val_acc),
        "train_mode_share": share(skill(*train_accs[-1:]), skill(get("train_transform_val_acc", get("plain_acc")))),
        "val_gap": gap,
        "val_gap_z": None if gap is None else gap / deviation(as_val, val_acc, inverses),
        # before they are memorised; a linear classifier does not memorise
        "val_lead_z": lead if lead is None or linear is None else max((lead - linear) / 2**0.5, lead, -linear),
        "noise_share": minus(1.0, share(linear_train, linear_val)) if noise_share is None else noise_share,
        "val_loss_rise": rise(get("val_losses") or [], val_accs, guessing or math.inf),
        "late_progress": progress(losses[len(losses) // 3 :]) if long else None,
    }
    return {key: value for key, value in (facts_now | later).items() if value is not None}


def deviation(first: float, second: float, inverses: list[float]) -> float:
    """Return the standard deviation of the difference of two accuracies, given one by the number of images of each."""
    mean = (first * inverses[1] + second * inverses[0]) / sum(inverses)
    return max(mean * (1 - mean), 0.01) ** 0.5 * sum(inverses) ** 0.5


def rise(losses: list[float], accs: list[float], guessing: float) -> float | None:
    """Return by which factor a loss exceeds its minimum, if that was at least three epochs ago; otherwise 1.

    While accuracy still rises, it is also 1 unless the loss is above that of guessing: then, it only shows that a few
    wrong answers are overconfident.
    """
    if len(losses) <= EPOCHS or not min(losses) > 0:
        return None
    if accs and max(accs[-EPOCHS:]) >= max(accs) and losses[-1] < guessing:
        return 1.0
    return losses[-1] / min(losses) if losses.index(min(losses)) < len(losses) - EPOCHS else 1.0


def progress(losses: list[float]) -> float:
    """Return which part of a loss was removed."""
    return (losses[0] - losses[-1]) / max(abs(losses[0]), 1e-12)


def strength(value: float, limits: Range) -> float:
    """Return 0 at the healthy end of a range, 1 at the sick end, and values between them in proportion."""
    if math.isnan(value):
        return 0.0
    healthy, sick = limits.healthy, limits.sick
    if limits.log:
        value, healthy, sick = (math.log(max(each, 1e-12)) for each in (value, healthy, sick))
    return min(max((value - healthy) / (sick - healthy), 0.0), 1.0)
