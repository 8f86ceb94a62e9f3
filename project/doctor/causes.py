"""Causes: the symptoms that each needs, those that exclude it, and the causes that it explains away."""

from typing import NamedTuple

# from the first to the last that an image meets: of two equally strong causes, the one upstream is the root
FAMILIES = (
    *("data", "split", "labels", "input", "augmentation", "wiring", "initialization", "activation", "loss"),
    *("precision", "clipping", "weight_decay", "optimizer", "learning_rate", "dropout", "schedule", "batch_size"),
    *("batch_norm", "evaluation", "overfitting", "capacity", "length"),
)
ALARM = 0.5  # strength from which a cause is an alarm
CONFIDENCE = {"sure": 0.9, "likely": 0.7, "possible": ALARM}
LIKELY, POSSIBLE = 0.89, 0.69  # limits of causes whose evidence has other explanations


class Cause(NamedTuple):
    """A cause of bad training; names are separated by spaces.

    Attributes:
        family: One of ``FAMILIES``.
        needs: Symptoms that must all be present; the weakest one is the strength of the cause. ``|`` separates
            alternatives, of which the strongest counts.
        excluded_by: Symptoms that exclude it.
        explains: Causes that it produces, which are then no alarms of their own.
        limit: The most that its strength can be.
    """

    family: str
    needs: str
    excluded_by: str = ""
    explains: str = ""
    limit: float = 1.0


GAP = "overfitting random_labels"  # consequences of validation that does not fit training
WEAK = "network_too_small augmentation_too_strong dead_units saturation vanishing_gradients"
OPTIMIZER = (
    "lr_too_high lr_too_low weight_decay_too_strong momentum_too_high eps_too_large clip_too_tight updates_rounded_away"
)
STUCK = f"cannot_memorize exploding_gradients {OPTIMIZER} {WEAK}"  # consequences of what cannot be trained
SMALL = "network_too_small lr_too_low"
SLOW = f"lr_too_low {WEAK}"  # consequences of steps that are too small
VAL_DIFFERS = f"shifted_split shortcut permuted_labels stale_batch_norm {GAP}"
BLOCKED = f"ignores_pixels init_too_small no_activation {STUCK}"  # by layers without gradient

# fmt: off
CAUSES = {
    "constant_images": Cause("data", "constant_images", explains="conflicting_labels"),
    "imbalance": Cause("data", "imbalanced rare_classes_missed", "moved", "class_polluted"),
    "shortcut": Cause("data", "fast_fit val_fails | linear_on_train_only linear_val_fails val_fails",
        "permuted_clearly swapped", f"shifted_split {GAP}", LIKELY),
    "leak": Cause("split", "near_duplicates", limit=LIKELY),
    "shifted_split": Cause("split", "separable_splits", explains=GAP, limit=LIKELY),
    "conflicting_labels": Cause("labels", "conflicting_labels", explains="noisy_labels"),
    "permuted_labels": Cause("labels", "permuted permuted_clearly | permuted readable_labels val_at_chance"
        " train_ahead | swapped above_chance", explains=f"noisy_labels shortcut {GAP}"),
    "class_polluted": Cause("labels", "moved moved_are_confused", "swapped", "noisy_labels", LIKELY),
    "random_labels": Cause("labels", "train_ahead val_at_chance", "fast_fit permuted_clearly readable_labels",
        "overfitting dead_units", LIKELY),
    "noisy_labels": Cause("labels", "val_ahead many_errors",
        explains="network_too_small dead_units overfitting", limit=LIKELY),
    "nan_images": Cause("input", "nonfinite_images",
        explains=f"loss_not_finite val_normalization ignores_pixels init_too_large init_too_small {STUCK}"),
    "val_normalization": Cause("input", "val_pixels_differ | eval_transforms_hurt", explains=VAL_DIFFERS),
    "wrong_scale": Cause("input", "large_inputs | small_inputs", "blank",
        f"val_normalization init_too_large init_too_small loss_not_finite {STUCK}"),
    "augmentation_too_strong": Cause("augmentation",
        "augmentation_destroys underfits | augmented_unreadable underfits", "large_updates slow_updates",
        "network_too_small dead_units", LIKELY),
    "augmentation_changes_class": Cause("augmentation", "transforms_help",
        "val_pixels_differ permuted_clearly swapped stale_statistics not_learning", GAP, LIKELY),
    "loss_detached": Cause("wiring", "loss_without_gradient", explains=f"detached_layers {STUCK}"),
    "unregistered_layers": Cause("wiring", "unregistered", explains=f"not_optimized mixes_images {STUCK}"),
    "not_optimized": Cause("wiring", "not_optimized", explains=STUCK),
    "frozen_by_accident": Cause("wiring", "frozen_random", explains=STUCK, limit=LIKELY),
    "detached_layers": Cause("wiring", "no_gradient", "symmetric constant_outputs", BLOCKED),
    "ignores_input": Cause("wiring", "constant_outputs", "symmetric fading_signal",
        f"ignores_pixels no_activation detached_layers {STUCK}"),
    "ignores_pixels": Cause("wiring", "blind_pixels", "constant_outputs rectified_outputs", limit=LIKELY),
    "mixes_images": Cause("wiring", "mixes_images", "training_modules", f"wrong_objective {STUCK}"),
    "no_activation": Cause("activation", "affine", "constant_outputs single_layer", "network_too_small"),
    "symmetric_init": Cause("initialization", "symmetric", explains=f"ignores_input detached_layers {BLOCKED}"),
    "init_too_large": Cause("initialization", "large_first_loss | dead_at_start", explains=f"loss_not_finite {STUCK}"),
    "init_too_small": Cause("initialization", "fading_signal small_weights", explains=STUCK),
    "dead_units": Cause("activation", "dead underfits second_half", explains=f"vanishing_gradients {SMALL}"),
    "saturation": Cause("activation", "saturated underfits", explains=f"vanishing_gradients {SMALL}"),
    "vanishing_gradients": Cause("activation", "fading_signal usual_weights", explains=f"cannot_memorize {SMALL}"),
    "loss_not_finite": Cause("loss", "loss_not_finite | nonfinite_steps", "loss_exploded large_updates scaler_skips"),
    "bounded_outputs": Cause("loss", "unit_outputs bounded_below | sure_floor | rectified_outputs", "rewards_errors",
        f"ignores_pixels {STUCK}"),
    "wrong_objective": Cause("loss", "rewards_errors | memorizes_wrongly", "mixes_images", f"loss_not_finite {STUCK}"),
    "smoothing_too_high": Cause("loss", "little_range", "rewards_errors", STUCK),
    "loss_is_sum": Cause("loss", "sum_over_batch trial_fails lower_lr_learns", explains=STUCK),
    "clip_too_tight": Cause("clipping", "trial_fails clip_off_learns | clipped slow_updates underfits second_half",
        explains=SLOW),
    "exploding_gradients": Cause("clipping", "gradient_spikes loss_jumps underfits second_half", limit=LIKELY),
    "weight_decay_too_strong": Cause("weight_decay", "trial_fails decay_off_learns | fast_decay",
        "lower_lr_learns", f"lr_too_high {SLOW}"),
    "uphill_steps": Cause("optimizer", "uphill", explains=STUCK),
    "momentum_too_high": Cause("optimizer", "high_momentum", explains=f"lr_too_high weight_decay_too_strong {WEAK}",
        limit=LIKELY),
    "eps_too_large": Cause("optimizer", "trial_fails usual_eps_learns", explains=SLOW),
    "fp16_overflow": Cause("precision", "scaler_skips", explains=SLOW, limit=LIKELY),
    "updates_rounded_away": Cause("precision", "unchanged coarse_weights", explains=SLOW),
    "lr_too_high": Cause("learning_rate", "trial_fails lower_lr_learns | large_updates never_learned"
        " | large_updates not_learning second_half | large_updates dead underfits second_half"
        " | val_loss_exploded large_updates underfits second_half"
        " | nonfinite_steps loss_exploded | nonfinite_steps large_updates", "nothing_learns",
        f"exploding_gradients {WEAK}"),
    "lr_too_low": Cause("learning_rate", "trial_fails training_too_short_for_lr | slow_updates underfits second_half",
        "nothing_learns lower_lr_learns fine_tuned", "network_too_small"),
    "dropout_too_high": Cause("dropout", "modes_differ high_dropout | high_dropout not_learning",
        explains="lr_too_high network_too_small dead_units vanishing_gradients"),
    "cannot_memorize": Cause("wiring", "trial_fails nothing_learns", limit=POSSIBLE),
    "lr_zero_early": Cause("schedule", "idle_half", explains=SLOW),
    "peak_too_late": Cause("schedule", "late_peak", "idle_half", limit=LIKELY),
    "batch_too_small": Cause("batch_norm", "small_batches", limit=LIKELY),
    "eval_without_effect": Cause("evaluation", "training_modules", explains="noisy_evaluation"),
    "noisy_evaluation": Cause("evaluation", "eval_noise", "training_modules"),
    "stale_batch_norm": Cause("batch_norm", "stale_statistics", "permuted_clearly", f"shortcut {GAP}"),
    "overfitting": Cause("overfitting", "memorized val_loss_rises val_behind", limit=LIKELY),
    "network_too_small": Cause("capacity", "plateau underfits_much no_gap | few_directions underfits",
        "single_layer not_learning slow_updates", limit=POSSIBLE),
}
# fmt: on


class Finding(NamedTuple):
    """A cause that is present, its strength from 0 to 1, and the symptoms that show it."""

    cause: str
    strength: float
    shown_by: list[str]

    @property
    def confidence(self) -> str:
        """The strength in a word."""
        return next(word for word, least in CONFIDENCE.items() if self.strength >= least)


def ways(cause: Cause) -> list[list[str]]:
    """Return the alternative sets of symptoms that a cause needs."""
    return [way.split() for way in cause.needs.split("|")]


def find(name: str, found: dict[str, float]) -> Finding:
    """Return how well the symptoms support a cause: 0 if one is missing or unknown, or if another excludes it."""
    cause = CAUSES[name]
    strength, way = max((min(found.get(each, 0.0) for each in way), way) for way in ways(cause))
    excluded = any(found.get(each, 0.0) >= ALARM for each in cause.excluded_by.split())
    return Finding(name, 0.0 if excluded else min(cause.limit, strength), way)


def diagnose(found: dict[str, float], silenced: frozenset[str] = frozenset()) -> list[Finding]:
    """Return the root causes from the first to the last; no cause is one that another explains.

    Args:
        found: Strength of each symptom.
        silenced: Causes that are no alarms; what they explain is none either.
    """
    present = [finding for name in CAUSES if (finding := find(name, found)).strength >= ALARM]
    explained = {each for finding in present for each in CAUSES[finding.cause].explains.split()}
    roots = [finding for finding in present if finding.cause not in explained | silenced]
    words = list(CONFIDENCE)
    return sorted(roots, key=lambda each: (words.index(each.confidence), FAMILIES.index(CAUSES[each.cause].family)))


def unknown(found: dict[str, float]) -> list[str]:
    """Return the causes that could not be checked: in each way, a symptom is unmeasured and none is absent."""
    values = {name: [[found.get(each) for each in way] for way in ways(cause)] for name, cause in CAUSES.items()}
    return [n for n, each in values.items() if all(None in w and all(v is None or v >= ALARM for v in w) for w in each)]


def ruled_out(cause: str, found: dict[str, float]) -> list[str]:
    """Return the causes that would also explain the symptoms of a cause, but were checked and are absent."""
    checked = CAUSES.keys() - {*unknown(found)}
    others = [name for name in CAUSES if cause in CAUSES[name].explains.split() and name in checked]
    return [name for name in others if find(name, found).strength < ALARM]
