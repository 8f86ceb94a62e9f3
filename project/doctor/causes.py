"""Causes: the symptoms that each needs, those that exclude it, and the causes that it explains away."""

from typing import NamedTuple

STAGES = ("data", "labels", "input", "wiring", "initialization", "loss", "optimizer", "schedule", "evaluation")
ALARM = 0.5  # strength from which a cause is an alarm
CONFIDENCE = {"sure": 0.9, "likely": 0.7, "possible": ALARM}


class Cause(NamedTuple):
    """A cause of bad training.

    Attributes:
        family: Family of the issue's schema, such as "learning_rate".
        stage: One of ``STAGES``; of two equally strong causes, the one upstream is the root.
        needs: Symptoms that must all be present; the weakest one is the strength of the cause.
        excluded_by: Symptoms that exclude it.
        explains: Causes that it produces, which are then no alarms of their own.
        limit: The most that its strength can be, where the evidence has other explanations.
    """

    family: str
    stage: str
    needs: tuple[str, ...]
    excluded_by: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    limit: float = 1.0


OPTIMIZER = (
    "lr_too_high",
    "lr_too_low",
    "weight_decay_too_strong",
    "momentum_too_high",
    "eps_too_large",
    "clip_too_tight",
)
UNTRAINABLE = ("cannot_memorize", *OPTIMIZER)
INIT = ("init_too_large", "init_too_small")

NO_SIGMOID = ("probabilities", "rectified_outputs")
BLOCKED = ("ignores_pixels", "init_too_small", *UNTRAINABLE)  # by layers without gradient

CAUSES = {
    "constant_images": Cause("data", "data", ("constant_images",), explains=("conflicting_labels",)),
    "leak": Cause("split", "data", ("near_duplicates",), limit=0.89),
    "shifted_split": Cause("split", "data", ("separable_splits",), limit=0.89),
    "conflicting_labels": Cause("labels", "labels", ("conflicting_labels",)),
    "permuted_labels": Cause("labels", "labels", ("permuted_labels",), ("separable_splits",)),
    "nan_images": Cause(
        "input",
        "input",
        ("nonfinite_images",),
        explains=("loss_not_finite", "val_normalization", "ignores_pixels", *UNTRAINABLE, *INIT),
    ),
    "swapped_channels": Cause("input", "input", ("swapped_channels",), explains=("shifted_split", "val_normalization")),
    "val_normalization": Cause(
        "input", "input", ("val_scale_differs",), explains=("shifted_split", "augmented_normalization")
    ),
    "val_brightness": Cause(
        "input", "input", ("val_mean_differs",), ("val_scale_differs",), ("shifted_split",), limit=0.89
    ),
    "augmented_normalization": Cause(
        "input", "input", ("augmented_scale_differs",), ("val_scale_differs",), limit=0.89
    ),
    "large_inputs": Cause(
        "input", "input", ("large_inputs",), explains=("val_normalization", "init_too_large", *UNTRAINABLE)
    ),
    "small_inputs": Cause("input", "input", ("small_inputs",), explains=("val_normalization", *INIT, *UNTRAINABLE)),
    "loss_detached": Cause("wiring", "wiring", ("loss_without_gradient",), explains=("detached_layers", *UNTRAINABLE)),
    "unregistered_layers": Cause(
        "wiring", "wiring", ("unregistered",), explains=("not_optimized", "mixes_images", *UNTRAINABLE)
    ),
    "not_optimized": Cause("wiring", "wiring", ("not_optimized",), explains=UNTRAINABLE),
    "frozen_by_accident": Cause("wiring", "wiring", ("frozen_random",), explains=UNTRAINABLE, limit=0.89),
    "detached_layers": Cause("wiring", "wiring", ("no_gradient",), ("symmetric", "constant_outputs"), BLOCKED),
    "ignores_input": Cause(
        "wiring",
        "wiring",
        ("constant_outputs",),
        ("symmetric", "fading_signal"),
        ("ignores_pixels", "no_activation", "detached_layers", *UNTRAINABLE),
    ),
    "ignores_pixels": Cause(
        "wiring", "wiring", ("blind_pixels",), ("constant_outputs", "rectified_outputs"), limit=0.89
    ),
    "mixes_images": Cause(
        "wiring",
        "wiring",
        ("mixes_images",),
        ("norms_of_batches", "training_modules"),
        ("wrong_objective", *UNTRAINABLE),
    ),
    "no_activation": Cause("activation", "wiring", ("affine",), ("constant_outputs",)),
    "symmetric_init": Cause(
        "initialization", "initialization", ("symmetric",), explains=("ignores_input", "detached_layers", *BLOCKED)
    ),
    "init_too_large": Cause("initialization", "initialization", ("large_first_loss",), explains=UNTRAINABLE),
    "init_too_small": Cause("initialization", "initialization", ("fading_signal",), explains=UNTRAINABLE),
    "loss_not_finite": Cause("loss", "loss", ("loss_not_finite",)),
    "softmax_twice": Cause(
        "loss", "loss", ("probabilities", "bounded_below"), explains=("bounded_outputs", *UNTRAINABLE)
    ),
    "bounded_outputs": Cause("loss", "loss", ("unit_outputs", "bounded_below"), NO_SIGMOID, UNTRAINABLE),
    "rectified_outputs": Cause("loss", "loss", ("rectified_outputs",), explains=("ignores_pixels", *UNTRAINABLE)),
    "rewards_errors": Cause("loss", "loss", ("rewards_errors",), explains=("wrong_objective", *UNTRAINABLE)),
    "wrong_objective": Cause("loss", "loss", ("memorizes_wrongly",), ("mixes_images",), UNTRAINABLE),
    "smoothing_too_high": Cause("loss", "loss", ("little_range",), ("rewards_errors",), UNTRAINABLE),
    "loss_is_sum": Cause("loss", "loss", ("sum_over_batch", "trial_fails", "lower_lr_learns"), explains=OPTIMIZER),
    "clip_too_tight": Cause("clipping", "optimizer", ("trial_fails", "clip_off_learns"), explains=("lr_too_low",)),
    "weight_decay_too_strong": Cause(
        "weight_decay", "optimizer", ("trial_fails", "decay_off_learns"), explains=("lr_too_high",)
    ),
    "weights_forgotten": Cause("weight_decay", "optimizer", ("fast_decay",), ("trial_fails",)),
    "momentum_too_high": Cause(
        "optimizer", "optimizer", ("high_momentum",), explains=("lr_too_high", "weights_forgotten"), limit=0.89
    ),
    "eps_too_large": Cause("optimizer", "optimizer", ("trial_fails", "usual_eps_learns"), explains=("lr_too_low",)),
    "lr_too_high": Cause("learning_rate", "optimizer", ("trial_fails", "lower_lr_learns"), ("nothing_learns",)),
    "lr_too_low": Cause(
        "learning_rate",
        "optimizer",
        ("trial_fails", "training_too_short_for_lr"),
        ("nothing_learns", "lower_lr_learns"),
    ),
    "cannot_memorize": Cause("wiring", "optimizer", ("trial_fails", "nothing_learns"), limit=0.69),
    "lr_zero_early": Cause("schedule", "schedule", ("idle_half",)),
    "peak_too_late": Cause("schedule", "schedule", ("late_peak",), ("idle_half",), limit=0.89),
    "batch_too_small": Cause("batch_norm", "schedule", ("small_batches",), limit=0.89),
    "eval_without_effect": Cause("evaluation", "evaluation", ("training_modules",)),
    "norms_use_batches": Cause("batch_norm", "evaluation", ("norms_of_batches", "mixes_images"), limit=0.89),
    "noisy_evaluation": Cause("evaluation", "evaluation", ("noisy_evaluation",), ("training_modules",)),
}


class Finding(NamedTuple):
    """A cause that is present, and its strength from 0 to 1."""

    cause: str
    strength: float

    @property
    def confidence(self) -> str:
        """The strength in a word."""
        return next(word for word, least in CONFIDENCE.items() if self.strength >= least)


def strength_of(cause: Cause, found: dict[str, float]) -> float:
    """Return how well the symptoms support a cause; 0 if one is missing or unknown, or if another excludes it."""
    if any(found.get(name, 0.0) >= ALARM for name in cause.excluded_by):
        return 0.0
    return min(cause.limit, *(found.get(name, 0.0) for name in cause.needs))


def diagnose(found: dict[str, float], silenced: frozenset[str] = frozenset()) -> list[Finding]:
    """Return the root causes from the first to the last; no cause is one that another explains.

    Args:
        found: Strength of each symptom.
        silenced: Causes that are no alarms; what they explain is none either.
    """
    present = {name: strength_of(cause, found) for name, cause in CAUSES.items()}
    present = {name: value for name, value in present.items() if value >= ALARM}
    explained = {each for name in present for each in CAUSES[name].explains}
    roots = [Finding(name, value) for name, value in present.items() if name not in explained | silenced]
    words = list(CONFIDENCE)
    return sorted(roots, key=lambda each: (words.index(each.confidence), STAGES.index(CAUSES[each.cause].stage)))


def unknown(found: dict[str, float]) -> list[str]:
    """Return the causes that could not be checked: a symptom that they need was not measured, and none is absent."""
    needs = {name: [found.get(symptom) for symptom in cause.needs] for name, cause in CAUSES.items()}
    return [name for name, values in needs.items() if None in values and all(v is None or v >= ALARM for v in values)]


def excluded(found: dict[str, float], stage: str) -> list[str]:
    """Return the causes of a stage whose symptoms were measured and are absent."""
    of_stage = {name: cause for name, cause in CAUSES.items() if cause.stage == stage}
    return [n for n, cause in of_stage.items() if n not in unknown(found) and strength_of(cause, found) < ALARM]
