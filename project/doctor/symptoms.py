"""Symptoms: which facts are outside their healthy range, and how far."""

import math
from typing import Any, NamedTuple

Facts = dict[str, Any]
EPOCHS = 3  # before which learning is not judged
SUM = 1.8  # ratio of the loss of twice the batch from which it is a sum


class Symptom(NamedTuple):
    """A healthy range of a fact: up to ``healthy``, or from it upwards if ``sick`` is below it."""

    fact: str
    healthy: float  # strength 0
    sick: float  # strength 1
    meaning: str  # of the number, or what is usual
    log: bool = False  # interpolate between logarithms


# All limits, set on healthy runs and planted faults, and frozen on 2026-11-28 at 12:50 UTC, before further networks and
# data were tried; augmentation_destroys was then widened.
SYMPTOMS = {
    # data and labels
    "constant_images": Symptom("constant_images", 0.002, 0.02, "share of training images; a few are usual"),
    "conflicting_labels": Symptom("conflicting_duplicates", 0.002, 0.02, "share of training images; a few are usual"),
    "near_duplicates": Symptom("near_duplicates", 0.05, 0.15, "share of val; .033 of CIFAR-10's test images (ciFAIR)"),
    "separable_splits": Symptom("split_accuracy", 0.57, 0.68, "share whose split is guessed; .5 for random splits"),
    "imbalanced": Symptom("imbalance", 5, 20, "largest class / smallest; 2 or 3 is harmless", log=True),
    "rare_classes_missed": Symptom("rare_gap", 0.1, 0.3, "accuracy that rare classes lack; classes differ by some"),
    "fast_fit": Symptom("epochs_to_fit", 8, 3, "epochs until nearly all are recognised; memorising takes longer"),
    "val_fails": Symptom("val_share", 0.65, 0.35, "of what is learned on training images holds on val; .9 is usual"),
    "val_at_chance": Symptom("chance_z", 3, 1.5, "deviations by which val is better than with renamed classes"),
    "above_chance": Symptom("chance_z", 1, 2.5, "deviations by which val is better than with renamed classes"),
    "train_ahead": Symptom("val_gap_z", 2, 4, "deviations by which training images are recognised better"),
    "val_ahead": Symptom("val_lead_z", 2.4, 4.2, "deviations by which val is better; it is if labels are wrong"),
    "many_errors": Symptom("noise_share", 0.1, 0.3, "of what holds on val is not recognised in training images"),
    "readable_labels": Symptom("linear_z", 4, 8, "deviations by which linear classifiers beat guessing"),
    "linear_on_train_only": Symptom("linear_gap_z", 3, 6, "deviations by which they are better on train"),
    "linear_val_fails": Symptom("linear_share", 0.6, 0.3, "of what a linear classifier learns holds on val"),
    "permuted": Symptom("permutation_gain", 0.05, 0.25, "accuracy that renaming the classes of val adds"),
    "permuted_clearly": Symptom("permutation_z", 1.4, 2.8, "the same in deviations of a class; about 1 by chance"),
    "swapped": Symptom("swapped_z", 0.9, 1.5, "how clearly two classes are taken for each other; 1 happens by chance"),
    "moved": Symptom("moved_z", 2.5, 4.5, "deviations by which a class of train lacks images another has"),
    "moved_are_confused": Symptom("moved_share", 0.15, 0.35, "of the former are taken for the latter"),
    # input and augmentation
    "nonfinite_images": Symptom("nonfinite_images", 0, 1e-6, "share of values; NaN spreads to all weights in one step"),
    "val_pixels_differ": Symptom("val_pixel_shift", 0.3, 0.6, "standard deviations; below .1 for a random split"),
    "eval_transforms_hurt": Symptom("eval_transform_loss", 0.1, 0.2, "accuracy on training images that they cost"),
    "large_inputs": Symptom("pixel_std", 1.6, 2.4, "standard deviation in an image; 1 if normalised"),
    "blank": Symptom("pixel_std", 1e-4, 1e-6, "0 for erased images", log=True),
    "small_inputs": Symptom("pixel_std", 0.05, 0.01, "standard deviation in an image; 1 if normalised", log=True),
    "augmentation_destroys": Symptom("augmented_information", 0.5, 0.25, "of what a linear classifier learns is left"),
    "augmented_unreadable": Symptom("augmented_share", 0.5, 0.2, "of what the network knows is left; .9 is usual"),
    "transforms_help": Symptom("transform_gain", 0.05, 0.15, "accuracy that they add on val; they usually cost some"),
    # wiring
    "unregistered": Symptom("unregistered_values", 0, 1, "values that get gradients, but are no parameters"),
    "not_optimized": Symptom("not_optimized", 0, 0.01, "share of the network"),
    "frozen_random": Symptom("frozen_random", 0.3, 0.6, "share of the network; a whitening layer is a few percent"),
    "no_gradient": Symptom("no_gradient", 0, 0.01, "share of the network; 0 after 5 steps, also with zero heads"),
    "loss_without_gradient": Symptom("loss_has_gradient", 1, 0, "whether it has one"),
    "mixes_images": Symptom("batch_dependence", 1e-3, 1e-2, "relative change; rounding is below 1e-4", log=True),
    "training_modules": Symptom("modules_in_training_mode", 0, 1, "modules, after eval()"),
    "constant_outputs": Symptom("input_dependence", 1e-4, 1e-6, "relative difference between images", log=True),
    "blind_pixels": Symptom("pixel_coverage", 0.6, 0.4, "share that has influence; 1 for all networks of this project"),
    "affine": Symptom("affinity", 1e-3, 1e-5, "difference from a linear layer; activations give .01", log=True),
    "single_layer": Symptom("layers", 2, 1, "softmax regression has one"),
    # initialization and activation
    "dead_at_start": Symptom("dead_at_start", 0.6, 0.9, "share of the units, before training; .2 is usual"),
    "usual_weights": Symptom("weight_gain", 0.1, 0.3, "times 1 / sqrt(inputs); .6 for defaults, 1.4 for kaiming"),
    "small_weights": Symptom("weight_gain", 0.3, 0.1, "times 1 / sqrt(inputs); .6 for defaults, 1.4 for kaiming"),
    "symmetric": Symptom("symmetric_layers", 0, 1, "layers, after 5 steps"),
    "large_first_loss": Symptom("first_loss_excess", 3, 10, "above guessing; below 1 for all networks of this project"),
    "fading_signal": Symptom("signal_ratio", 1e-3, 1e-5, "last layer / first; above .01 in this project", log=True),
    "dead": Symptom("dead_share", 0.5, 0.9, "share of a layer that is 0 for all images; .4 is harmless"),
    "saturated": Symptom("saturated_share", 0.3, 0.7, "share of the inputs of sigmoid and tanh"),
    # loss
    "loss_not_finite": Symptom("first_loss_finite", 1, 0, "whether the first one is a number"),
    "nonfinite_steps": Symptom("nonfinite_steps", 0, 1, "steps whose loss is NaN or infinite"),
    "unit_outputs": Symptom("unit_interval", 0, 1, "whether all outputs are between 0 and 1; logits have any sign"),
    "rectified_outputs": Symptom("rectified", 0.05, 0.2, "share of outputs that are exactly 0, and none is negative"),
    "loss_of_right_probabilities": Symptom("simplex_floor", 0.3, 0.45, "of that of guessing; .63 after a softmax"),
    "loss_of_right_logits": Symptom("sure_floor", 0.2, 0.4, "of that of guessing; .63 after two softmaxes"),
    "little_range": Symptom("loss_range", 0.2, 0.08, "of the loss can be removed; .57 with smoothing .2, .22 with .6"),
    "rewards_errors": Symptom("truth_gain", 0.05, -0.05, "loss of wrong classes minus right ones; 2 for cross-entropy"),
    "sum_over_batch": Symptom("loss_of_twice_the_batch", 1.5, 1.9, "relative to one batch; 1 for means, 2 for sums"),
    "memorizes_wrongly": Symptom("memorized", 0.5, 0.1, "of the images are right once their loss is gone"),
    # optimizer, in a trial
    "trial_fails": Symptom("trial_progress", 0.1, 0.0, "of the loss of 16 images is removed; healthy trials exceed .5"),
    "nothing_learns": Symptom("adam_progress", 0.1, 0.0, "the same by Adam"),
    "lower_lr_learns": Symptom("lr_excess", 3, 10, "times the rate that learns them; 3 can be healthy", log=True),
    "training_too_short_for_lr": Symptom("lr_shortfall", 3, 30, "trainings of the planned length needed", log=True),
    "uphill": Symptom("uphill", 0, 1, "whether the first step goes along the gradient"),
    "decay_off_learns": Symptom("repair_weight_decay", 0.3, 0.6, "of the loss is removed without weight decay"),
    "usual_eps_learns": Symptom("repair_eps", 0.3, 0.6, "of the loss is removed with eps 1e-8"),
    "clip_off_learns": Symptom("repair_clip", 0.3, 0.6, "of the loss is removed without clipping"),
    "high_momentum": Symptom("momentum", 0.985, 0.995, "OneCycle reaches .95"),
    "fast_decay": Symptom("decay_per_step", 0.03, 0.1, "of a weight in a step; .0003 for a ResNet", log=True),
    # optimizer, in training
    "second_half": Symptom("progress", 0.4, 0.6, "of the training; at the peak of a schedule, it is unstable"),
    "underfits": Symptom("train_skill", 0.8, 0.4, "of training images; 0 is guessing, 1 all of them"),
    "underfits_much": Symptom("train_skill", 0.5, 0.2, "of training images; 0 is guessing, 1 all of them"),
    "not_learning": Symptom("learned", 0.28, 0.07, "log of accuracy; 0 is guessing, 1 perfect"),
    "never_learned": Symptom("best_learned", 0.28, 0.07, "log of the best accuracy; 0 is guessing, 1 perfect"),
    "val_loss_exploded": Symptom("val_loss_peak", 20, 200, "times that of guessing, in any epoch", log=True),
    "large_updates": Symptom("update_ratio", 0.01, 0.1, "of the weights in a step; .001 to .02 is usual", log=True),
    "fine_tuned": Symptom("pretrained", 0, 1, "fine-tuning takes small steps"),
    "slow_updates": Symptom("update_ratio", 1e-3, 3e-5, "of the weights in a step; .001 to .02 is usual", log=True),
    "loss_exploded": Symptom("loss_peak", 1.5, 4, "times the loss of guessing", log=True),
    "gradient_spikes": Symptom("gradient_spikes", 5, 20, "99th percentile of norms / median; 3 is usual", log=True),
    "loss_jumps": Symptom("loss_jump_share", 0.005, 0.02, "of all steps"),
    "clipped": Symptom("clipped_share", 0.3, 0.7, "of all steps; a clip is for outliers"),
    "scaler_skips": Symptom("scaler_skip_share", 0.02, 0.08, "of steps after step 200; one in 2000 is usual"),
    "unchanged": Symptom("unchanged_share", 0.2, 0.6, "of weights with a gradient"),
    "coarse_weights": Symptom("weight_eps", 1e-6, 1e-4, "relative precision; 1e-7 for 32-bit floats", log=True),
    "modes_differ": Symptom("train_mode_share", 0.7, 0.3, "of what eval mode recognises is, in training; .9 is usual"),
    "high_dropout": Symptom("dropout_rate", 0.5, 0.8, ".1 to .5 are usual"),
    # schedule, evaluation, and the whole training
    "late_peak": Symptom("peak_at", 0.5, 0.7, "of the training; OneCycle has .3"),
    "idle_half": Symptom("zero_in_first_half", 0.2, 0.6, "share of it; warm-ups of a few percent are usual"),
    "small_batches": Symptom("batch_norm_images", 8, 3, "images; batch norm is noisy with few", log=True),
    "eval_noise": Symptom("eval_noise", 1e-3, 1e-2, "relative difference; rounding is below 1e-4", log=True),
    "stale_statistics": Symptom("batch_stat_gap", 0.05, 0.15, "accuracy that statistics of batches add"),
    "memorized": Symptom("train_skill", 0.85, 0.97, "of training images; 0 is guessing, 1 all of them"),
    "val_loss_rises": Symptom("val_loss_rise", 1.1, 1.5, "times its minimum, three epochs ago or more"),
    "val_behind": Symptom("val_gap", 0.05, 0.15, "accuracy on training images minus that on val"),
    "no_gap": Symptom("val_gap", 0.08, 0.02, "accuracy on training images minus that on val"),
    "few_directions": Symptom("output_rank", 0.9, 0.6, "of 8, or the classes less one, in which outputs vary"),
    "plateau": Symptom("late_progress", 0.1, 0.02, "fall of the training loss after the first third of the epochs"),
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
    """Return 0 at the healthy end of a range, 1 at the sick end, and values between them in proportion."""
    healthy, sick = limits.healthy, limits.sick
    if limits.log:
        value, healthy, sick = (math.log(max(each, 1e-12)) for each in (value, healthy, sick))
    return min(max((value - healthy) / (sick - healthy), 0.0), 1.0)


def complete(facts: Facts) -> Known:
    """Return facts with those that follow from them."""
    f = Known((name, value) for name, value in facts.items() if value is not None)
    chance, val_acc, linear_z = f["chance"], f["val_acc"], f["linear_gap_z"]
    train_accs, val_accs, train_losses, val_losses, pairs, gaps = (
        facts.get(name) or []
        for name in ("train_accs", "val_accs", "train_losses", "val_losses", "train_and_val_accs", "batch_stat_gaps")
    )
    as_val = facts.get("eval_transform_acc", f["plain_acc"])  # of training images
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
    f |= {
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
    leads = [((v - t) / deviation(t, v, per_image), 1 - share(skill(t), skill(v))) for t, v in pairs]
    lead, noise = max(leads, key=lambda each: each[0], default=(math.nan, math.nan))
    late = train_losses[len(train_losses) // 3 :] if len(train_losses) >= 8 and facts.get("steps", 0) >= 1000 else []
    f |= {
        "eval_transform_loss": f["plain_acc"] - f["eval_transform_acc"],
        "train_skill": skill(train_acc),
        "learned": log_skill(train_acc),
        "best_learned": log_skill(best(train_acc, *train_accs, *(of_train for of_train, _ in pairs))),
        "val_share": share(skill(best(val_acc, f["batch_stat_acc"], as_train)), skill(train_acc)),
        "augmented_share": share(skill(as_train), skill(val_acc)),
        "transform_gain": as_train - val_acc,
        "train_mode_share": share(skill(in_training), skill(facts.get("train_transform_val_acc", f["plain_acc"]))),
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
