import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from project.doctor.causes import CAUSES, STAGES, diagnose, unknown
from project.doctor.messages import MESSAGES, report, terminal
from project.doctor.symptoms import RANGES, strength, symptoms

FAMILIES = [
    "data",
    "labels",
    "split",
    "input",
    "augmentation",
    "wiring",
    "initialization",
    "activation",
    "loss",
    "optimizer",
    "learning_rate",
    "clipping",
    "weight_decay",
    "schedule",
    "dropout",
    "batch_norm",
    "batch_size",
    "precision",
    "evaluation",
    "capacity",
    "overfitting",
    "length",
]
FAILS = {"trial_progress": -1.0, "adam_progress": 0.9}
HEALTHY: dict[str, Any] = {"pixel_std": 1.0, "trial_progress": 0.9, "memorized": 1.0, "loss_range": 0.6, "layers": 5}


def alarm(facts: dict[str, Any], *silenced: str) -> str | None:
    """Return the alarm of some facts."""
    found = diagnose(symptoms(facts), frozenset(silenced))
    return found[0].cause if found else None


def sick(cause: str) -> dict[str, Any]:
    """Return facts with which a cause is sure."""
    facts: dict[str, Any] = {RANGES[name].fact: RANGES[name].sick for name in CAUSES[cause].needs}
    names = {
        "no_gradient_names": ["a", "b"],
        "symmetric_names": ["c"],
        "trial_images": 16,
        "trial_steps": 80,
        "lr": 0.1,
    }
    return {"domain_z": 9.0, "layers": 5, "repair_factor_down": 0.1, "repair_factor_up": 100} | names | facts


def test_tables_are_consistent() -> None:
    assert CAUSES.keys() == MESSAGES.keys()
    for cause in CAUSES.values():
        assert cause.family in FAMILIES
        assert cause.stage in STAGES
        assert {*cause.needs, *cause.excluded_by} <= RANGES.keys()
        assert {*cause.explains} <= CAUSES.keys()
    TopologicalSorter({name: cause.explains for name, cause in CAUSES.items()}).prepare()  # raises CycleError


def test_every_cause_has_its_paragraph_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs/doctor.md").read_text()
    assert re.findall(r"^- `(\w+)`: ", page, re.MULTILINE) == [*CAUSES]


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_found_by_its_symptoms_and_described(cause: str) -> None:
    result = report(sick(cause), {}, frozenset())
    entry = next(each for each in [*result["alarms"], *result["alternatives"]] if each["cause"] == cause)
    assert not re.search(r"[{}]|None|nan", entry["says"] + entry["why"])
    assert entry["evidence"].keys() == entry["healthy"].keys()
    assert entry["remedy"].keys() in ({"text"}, {"option", "value"})
    assert len(terminal(result, 40)) <= 15


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (HEALTHY, None),
        ({}, None),
        ({"pixel_std": 60.0, "first_loss_excess": 40.0, **FAILS, "lr_excess": 10.0}, "large_inputs"),
        ({"first_loss_excess": 40.0, **FAILS, "lr_excess": 10.0}, "init_too_large"),
        ({**FAILS, "lr_excess": 10.0}, "lr_too_high"),
        ({**FAILS, "lr_excess": 10.0, "loss_of_twice_the_batch": 2.0}, "loss_is_sum"),
        ({"loss_of_twice_the_batch": 2.0, "trial_progress": 0.9}, None),  # with a learning rate for sums
        ({**FAILS, "lr_excess": 10.0, "momentum": 0.999}, "momentum_too_high"),
        ({**FAILS, "lr_excess": 1.0, "lr_shortfall": 50.0}, "lr_too_low"),
        ({**FAILS, "lr_excess": 1.0, "lr_shortfall": 0.5}, None),  # enough in a long training
        ({"trial_progress": 0.0, "adam_progress": 0.0}, "cannot_memorize"),
        ({"trial_progress": 0.0, "adam_progress": 0.0, "no_gradient": 0.9}, "detached_layers"),
        ({"input_dependence": 0.0, "symmetric_layers": 2, "no_gradient": 1.0}, "symmetric_init"),
        ({"affinity": 1e-7, "layers": 3}, "no_activation"),
        ({"affinity": 1e-7, "layers": 1}, None),  # softmax regression
        ({"probabilities": 1.0, "unit_interval": 1.0, "simplex_floor": 0.63, "truth_gain": 0.5}, "softmax_twice"),
        ({"probabilities": 1.0, "unit_interval": 1.0, "simplex_floor": 0.0, "truth_gain": 0.5}, None),  # its own loss
        ({"domain_auc": 0.9, "domain_z": 20.0}, "shifted_split"),
        ({"domain_auc": 0.7, "domain_z": 2.0}, None),  # few images
        ({"domain_auc": 0.9, "domain_z": 20.0, "channel_swap": 20.0, "val_std_ratio": 2.0}, "swapped_channels"),
        ({"batch_dependence": 0.5, "norms_without_statistics": 3}, "norms_use_batches"),
        ({"pixel_coverage": 0.0, "input_dependence": 0.0}, "ignores_input"),
    ],
)
def test_facts_lead_to_the_root_cause(facts: dict[str, Any], cause: str | None) -> None:
    assert alarm(facts) == cause


def test_a_silenced_cause_still_explains_its_consequences() -> None:
    facts = {"pixel_std": 60.0, "first_loss_excess": 40.0}
    assert alarm(facts, "large_inputs") is None
    assert alarm(facts, "init_too_large") == "large_inputs"


def test_strength_is_zero_in_the_healthy_range_and_one_beyond_the_sick_end() -> None:
    rising, falling = RANGES["near_duplicates"], RANGES["blind_pixels"]
    assert [strength(value, rising) for value in (0.0, 0.05, 0.1, 0.15, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [strength(value, falling) for value in (1.0, 0.6, 0.5, 0.4, 0.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert strength(float("nan"), rising) == 0
    assert strength(1e-4, RANGES["fading_signal"]) == pytest.approx(0.5)


def test_what_was_not_measured_is_listed_unless_another_symptom_decides() -> None:
    assert "lr_too_high" not in unknown({"trial_fails": 0.0})
    assert "lr_too_high" in unknown({"trial_fails": 1.0})
    assert "leak" in unknown({})
    result = report(HEALTHY, {"trial": "RuntimeError: too large"}, frozenset())
    assert "trial (RuntimeError: too large)" in result["not_checked"]


def test_the_result_has_at_most_one_alarm_and_two_alternatives() -> None:
    facts = {"pixel_std": 60.0, "near_duplicates": 0.5, "batch_norm_images": 2, "peak_at": 0.9, "imbalance": 20.0}
    result = report(facts, {}, frozenset({"leak"}))
    keys = ("verdict", "alarms", "alternatives", "notes", "not_checked", "version")
    assert tuple(result) == keys
    assert [each["cause"] for each in result["alarms"]] == ["large_inputs"]
    assert [each["cause"] for each in result["alternatives"]] == ["peak_too_late", "batch_too_small"]
    assert result["notes"] == [
        "The largest class has 20 times the images of the smallest; see --data.sampler balanced.",
        "leak is silenced.",
    ]
    assert len(terminal(result, 40)) <= 15
