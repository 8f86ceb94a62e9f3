"""Symptoms: which facts are outside their healthy range, and how far."""

import math
from typing import Any, NamedTuple

Facts = dict[str, Any]


class Range(NamedTuple):
    """A healthy range of a fact: up to ``healthy``, or from it upwards if ``sick`` is below it."""

    fact: str
    healthy: float  # strength 0
    sick: float  # strength 1
    reason: str
    log: bool = False  # interpolate between logarithms


# Each threshold was set on healthy runs and planted faults of LeNet; see scripts/doctor_cases.py.
RANGES = {
    # data
    "constant_images": Range("constant_images", 0.002, 0.02, "a few broken files are usual"),
    "nonfinite_images": Range("nonfinite_images", 0, 1e-6, "NaN spreads to all weights in one step"),
    "conflicting_labels": Range("conflicting_duplicates", 0.002, 0.02, "a few are natural"),
    "near_duplicates": Range("near_duplicates", 0.05, 0.15, "CIFAR-10's test images have 3.3 % (ciFAIR)"),
    "separable_splits": Range("domain_auc", 0.6, 0.75, "random splits are at .5; 5 deviations are required, too"),
    "permuted_labels": Range("permuted_labels", 0.05, 0.2, "chance adds about .02 with 20 images a class"),
    "swapped_channels": Range("channel_swap", 4, 8, "standard errors; grey images have 0"),
    "val_scale_differs": Range("val_std_ratio", 1.25, 1.6, "1 for a random split"),
    "val_mean_differs": Range("val_mean_shift", 0.3, 0.8, "standard deviations; 0 for a random split"),
    "augmented_scale_differs": Range("augmented_std_ratio", 1.8, 3, "crops, erasing and MixUp stay below 1.5"),
    "large_inputs": Range("pixel_std", 1.6, 2.4, "1 if normalised, below .5 if scaled to 0..1"),
    "small_inputs": Range("pixel_std", 0.05, 0.01, "1 if normalised, above .1 if scaled to 0..1", log=True),
    # wiring
    "unregistered": Range("unregistered_values", 0, 1, "tensors that get gradients, but are no parameters"),
    "not_optimized": Range("not_optimized", 0, 0.01, "share of the network"),
    "frozen_random": Range("frozen_random", 0.3, 0.6, "a whitening layer is a few percent"),
    "no_gradient": Range("no_gradient", 0, 0.01, "share of the network; 0 after 5 steps, also with zero heads"),
    "loss_without_gradient": Range("loss_has_gradient", 1, 0, "0: nothing can be trained"),
    "mixes_images": Range("batch_dependence", 1e-3, 1e-2, "rounding is below 1e-4", log=True),
    "noisy_evaluation": Range("eval_noise", 1e-3, 1e-2, "rounding is below 1e-4", log=True),
    "training_modules": Range("modules_in_training_mode", 0, 1, "none, after eval()"),
    "norms_of_batches": Range("norms_without_statistics", 0, 1, "batch norms without running statistics"),
    "constant_outputs": Range("input_dependence", 1e-4, 1e-6, "after 5 steps, also with zero heads", log=True),
    "blind_pixels": Range("pixel_coverage", 0.6, 0.4, "1 for all networks of this project"),
    "affine": Range("affinity", 1e-3, 1e-5, "activations give more than .01", log=True),
    # initialization
    "symmetric": Range("symmetric_layers", 0, 1, "after 5 steps, also with heads of zeros"),
    "large_first_loss": Range("first_loss_excess", 3, 10, "below 1 for all networks of this project"),
    "fading_signal": Range("signal_ratio", 1e-3, 1e-5, "above .01 for all networks of this project", log=True),
    # loss
    "probabilities": Range("probabilities", 0, 1, "logits of any sign are expected"),
    "unit_outputs": Range("unit_interval", 0, 1, "logits of any sign are expected"),
    "rectified_outputs": Range("rectified", 0.05, 0.2, "logits of any sign are expected"),
    "bounded_below": Range("simplex_floor", 0.3, 0.45, "0 for losses of probabilities; .63 for cross-entropy of them"),
    "little_range": Range("loss_range", 0.2, 0.08, ".57 with smoothing .2, .22 with .6"),
    "rewards_errors": Range("truth_gain", 0.05, -0.05, "2 for cross-entropy"),
    "loss_not_finite": Range("first_loss_finite", 1, 0, "the first loss is a number"),
    "sum_over_batch": Range("loss_of_twice_the_batch", 1.5, 1.9, "1 for means, 2 for sums"),
    "memorizes_wrongly": Range("memorized", 0.5, 0.1, "1 if the loss of the same images is gone"),
    # optimizer
    "trial_fails": Range("trial_progress", 0.1, 0.0, "share of the loss that is removed; healthy trials exceed .5"),
    "nothing_learns": Range("adam_progress", 0.1, 0.0, "the same by Adam"),
    "lower_lr_learns": Range("lr_excess", 3, 10, "on few images, a healthy rate can be 3 times too high", log=True),
    "training_too_short_for_lr": Range("lr_shortfall", 3, 30, "trainings of the planned length", log=True),
    "decay_off_learns": Range("repair_weight_decay", 0.3, 0.6, "the trial learns without weight decay"),
    "usual_eps_learns": Range("repair_eps", 0.3, 0.6, "the trial learns with eps 1e-8"),
    "clip_off_learns": Range("repair_clip", 0.3, 0.6, "the trial learns without clipping"),
    "high_momentum": Range("momentum", 0.985, 0.995, "OneCycle reaches .95"),
    "fast_decay": Range("decay_per_step", 0.05, 0.2, "the head of airbench has .03, a ResNet .002", log=True),
    # schedule
    "late_peak": Range("peak_at", 0.5, 0.7, "OneCycle has .3"),
    "idle_half": Range("zero_in_first_half", 0.2, 0.6, "warm-ups of a few percent are usual"),
    "small_batches": Range("batch_norm_images", 8, 3, "batch norm is noisy with fewer images", log=True),
}


def symptoms(facts: Facts) -> dict[str, float]:
    """Return the strength of each symptom, 0 (healthy) to 1 (clearly sick), whose fact was measured."""
    found = {}
    for name, limits in RANGES.items():
        value = facts.get(limits.fact)
        if value is not None:
            found[name] = strength(float(value), limits)
    if facts.get("domain_z") is not None and facts["domain_z"] < 5:
        found["separable_splits"] = 0.0
    if facts.get("layers", 0) < 2 and "affine" in found:  # softmax regression
        found["affine"] = 0.0
    if facts.get("truth_gain", 1.0) <= 0 and "bounded_below" in found:
        found["bounded_below"] = 0.0  # unknown, because right outputs are not rewarded
    return found


def strength(value: float, limits: Range) -> float:
    """Return 0 at the healthy end of a range, 1 at the sick end, and values between them in proportion."""
    if math.isnan(value):
        return 0.0
    healthy, sick = limits.healthy, limits.sick
    if limits.log:
        value, healthy, sick = (math.log(max(each, 1e-12)) for each in (value, healthy, sick))
    return min(max((value - healthy) / (sick - healthy), 0.0), 1.0)
