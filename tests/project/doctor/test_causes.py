import math
import re
from pathlib import Path
from typing import Any

import pytest

from project.doctor.causes import CAUSES, CONFIDENCE, Finding, diagnose
from project.doctor.messages import entry_of, report, terminal
from project.doctor.symptoms import SYMPTOMS, Known, strength, symptoms, table

FAILS = {"trial_progress": -1.0, "adam_progress": 0.9}
HEALTHY: dict[str, Any] = {"pixel_std": 1.0, "trial_progress": 0.9, "memorized": 1.0, "loss_range": 0.6, "layers": 5}
# fmt: off
LEARNS: dict[str, Any] = {  # a network that learns CIFAR-10
    "epochs": 6, "planned_epochs": 6, "progress": 1.0, "steps": 2000, "chance": 0.1, "classes": 10, "val_images": 5000,
    "probe_val_images": 5000,
    "train_losses": [1.8, 1.4, 1.2, 1.1, 1.0, 0.9], "val_losses": [1.7, 1.4, 1.2, 1.1, 1.1, 1.0], "prior_loss": 2.3,
    "train_accs": [0.3, 0.5, 0.57, 0.61, 0.65, 0.68], "val_accs": [0.35, 0.5, 0.58, 0.6, 0.62, 0.66],
    "plain_acc": 0.7, "eval_transform_acc": 0.7, "train_transform_val_acc": 0.64, "val_acc": 0.66,
    "batch_stat_acc": 0.66, "batch_stat_gaps": [0.0, 0.0, 0.0], "permuted_acc": 0.66,
    "chance_z": 8.0, "swapped_z": 0.0, "moved_z": 0.0,
    "train_and_val_accs": [[0.4, 0.4], [0.7, 0.66]], "linear_z": 15.0, "linear_gap_z": 0.0,
    "linear_skills": [0.25, 0.25], "output_rank": 1.0, "largest_loss": 2.5,
    "probe_images": 512, "grad_norm_median": 1.0, "grad_norm_p99": 3.0, "lr": 0.05,
    "update_ratio": 2e-3, "unchanged_share": 0.0, "weight_eps": 1.2e-7,
    "dead_share": 0.05, "saturated_share": 0.0, "no_gradient": 0.0,
    "clipped_share": 0.0, "loss_jump_share": 0.0, "nonfinite_steps": 0, "imbalance": 1.0, "dropout_rate": 0.0,
}
FITTED: dict[str, Any] = LEARNS | {
    "train_accs": [0.99] * 6, "plain_acc": 1.0, "eval_transform_acc": 1.0, "train_losses": [0.3, *[0.01] * 5],
}
RISES = {"val_losses": [1.0, 0.8, 1.1, 1.4, 1.6, 1.9], "train_accs": [0.4] * 6}
UNKNOWN: dict[str, Any] = dict.fromkeys(("val_acc", "batch_stat_acc", "permuted_acc", "train_transform_val_acc"), 0.1)
UNKNOWN |= {"chance_z": 0.0, "val_accs": [0.1] * 6, "linear_z": 0.0}
STUCK: dict[str, Any] = LEARNS | UNKNOWN | {"plain_acc": 0.1, "eval_transform_acc": 0.1}
STUCK |= {"train_accs": [0.1] * 6, "val_accs": [0.1] * 6, "train_losses": [2.3] * 6, "val_losses": [2.3] * 6}
WEAK = LEARNS | {"plain_acc": 0.3, "eval_transform_acc": 0.3, "train_accs": [0.25] * 6, "val_acc": 0.3}
WEAK |= {"batch_stat_acc": 0.3, "permuted_acc": 0.3, "train_transform_val_acc": 0.28}
SLOW = LEARNS | dict.fromkeys(("plain_acc", "eval_transform_acc", "val_acc", "permuted_acc", "batch_stat_acc"), 0.05)
SLOW |= {"chance": 0.005, "classes": 200, "update_ratio": 0.1, "train_accs": [0.05] * 3, "epochs": 3}
SLOW["train_transform_val_acc"] = 0.05
WORSE: dict[str, Any] = dict.fromkeys(("val_acc", "permuted_acc", "train_transform_val_acc"), 0.3)
WORSE["val_losses"] = [2.3, 2.4, 3.0, 4.0, 5.0, 6.0]  # above guessing
FAMILIES = {
    "data", "labels", "split", "input", "augmentation", "wiring", "initialization", "activation", "loss",
    "optimizer", "learning_rate", "clipping", "weight_decay", "schedule", "dropout", "batch_norm", "batch_size",
    "precision", "evaluation", "capacity", "overfitting", "length"
}
# fmt: on


def alarm(facts: dict[str, Any], *silenced: str) -> str | None:
    """Return the alarm of some facts."""
    found = diagnose(symptoms(facts), frozenset(silenced))
    return found[0].cause.name if found else None


def test_tables_are_consistent() -> None:
    for cause in CAUSES.values():
        assert {*cause.shown_by.replace(" or ", " ").split(), *cause.unless.split()} <= SYMPTOMS.keys()
        assert cause.at_most in CONFIDENCE
        assert cause.family in FAMILIES
        assert all([cause.says, cause.why, cause.change])
    for symptom in SYMPTOMS.values():
        assert symptom.scale in ("", "log")
        assert symptom.healthy != symptom.ill


def test_a_row_of_a_table_with_too_many_cells_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.doctor.symptoms.PAGE", "## A\n| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 | 3 |\n")
    with pytest.raises(ValueError, match=r"Expected 2 cells, but got 3 in: \| 1 \| 2 \| 3 \|"):
        table("A")


def test_every_cause_has_its_paragraph_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs/doctor.md").read_text()
    assert sorted(re.findall(r"^- `(\w+)`: ", page, re.MULTILINE)) == sorted(CAUSES)


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (HEALTHY, None),
        ({}, None),
        ({"pixel_std": 60.0, "first_loss_excess": 40.0, **FAILS, "lr_excess": 10.0}, "wrong_scale"),
        ({"first_loss_excess": 40.0, **FAILS, "lr_excess": 10.0}, "init_too_large"),
        ({"first_loss_excess": 40.0, "weight_gain": 0.6}, "scaled_logits"),
        ({"val_sharpness": 0.4}, "val_sharpness"),
        ({"val_sharpness": 2.5}, "val_sharpness"),
        ({"copies": 0.9, "linear_gap_z": 20.0, "linear_skills": [0.7, 0.2]}, "duplicate_images"),
        ({"linear_gap_z": 20.0, "linear_skills": [0.7, 0.2]}, "shortcut"),
        ({"val_copies": 0.3}, "leak"),
        ({"similar_names": 1, "similar_pair": "ship and ships"}, "similar_classes"),
        ({"readable_z": 0.5}, "unreadable_labels"),
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
        ({"unit_interval": 1.0, "simplex_floor": 0.63, "truth_gain": 0.5}, "bounded_outputs"),
        ({"unit_interval": 1.0, "simplex_floor": 0.0, "truth_gain": 0.5}, None),  # its own loss
        ({"pixel_std": 0.0, "augmented_information": 0.0}, None),  # not scaled, but erased
        ({"signal_ratio": 1e-6, "weight_gain": 0.01}, "init_too_small"),
        ({"signal_ratio": 1e-6, "weight_gain": 0.6}, "vanishing_gradients"),  # of ten sigmoids
        ({"sure_floor": 0.6}, "bounded_outputs"),
        ({"uphill": 1.0}, "uphill_steps"),
        ({"split_accuracy": 0.8}, "shifted_split"),
        ({"split_accuracy": 0.8, "val_pixel_shift": 2.0}, "val_normalization"),
        ({"batch_dependence": 0.5}, "mixes_images"),
        ({"unrewarded": 1.0}, "wrong_targets"),
        ({"unrewarded": 1.0, "truth_gain": -2.0}, "wrong_objective"),
        ({"pixel_coverage": 0.0, "input_dependence": 0.0}, "ignores_input"),
    ],
)
def test_facts_before_training_lead_to_the_root_cause(facts: dict[str, Any], cause: str | None) -> None:
    assert alarm(facts) == cause


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (LEARNS, None),
        (FITTED | {"val_acc": 0.93, "val_losses": [0.4, 0.3, 0.28, 0.27, 0.27, 0.28]}, None),  # a gap alone is usual
        (FITTED | RISES | {"val_accs": [0.5, 0.66, 0.65, 0.64, 0.63, 0.62]}, "overfitting"),
        (FITTED | RISES, None),  # accuracy still rises
        (WEAK | {"update_ratio": 1e-5, "pretrained": 1.0}, None),  # fine-tuning takes small steps
        (FITTED | WORSE, "overfitting"),
        (FITTED | UNKNOWN, "shortcut"),
        (  # which the linear classifier shows, however long the network takes
            WEAK | UNKNOWN | {"linear_z": 90.0, "linear_gap_z": 20.0, "linear_skills": [0.9, 0.1]},
            "shortcut",
        ),
        (
            FITTED | {"train_accs": [0.12, 0.2, 0.4, 0.6, 0.8, 0.99]} | UNKNOWN,
            "random_labels",
        ),
        (LEARNS | {"train_and_val_accs": [[0.3, 0.5]]}, "noisy_labels"),
        (FITTED | {"train_and_val_accs": [[0.3, 0.5], [1.0, 0.5]]}, "noisy_labels"),  # memorised later
        (LEARNS | {"train_and_val_accs": [[0.3, 0.5]], "probe_val_images": 30}, None),  # a difference by chance
        (WEAK | {"train_and_val_accs": [[0.2, 0.3]], "linear_gap_z": -3.0}, "noisy_labels"),
        (WEAK | UNKNOWN | {"permuted_acc": 0.3, "linear_z": 20.0, "probe_val_images": 300}, "permuted_labels"),
        (FITTED | {"val_acc": 0.01, "permuted_acc": 0.9}, "permuted_labels"),
        (FITTED | {"val_acc": 0.75, "permuted_acc": 0.94, "swapped_z": 2.0}, "permuted_labels"),
        (WEAK | {"val_acc": 0.25, "swapped_z": 1.5, "chance_z": 3.0}, "permuted_labels"),
        (LEARNS | {"moved_z": 5.0, "moved_share": 0.6, "imbalance": 50.0, "rare_gap": 0.5}, "class_polluted"),
        (LEARNS | {"imbalance": 50.0, "rare_gap": 0.5}, "imbalance"),
        (LEARNS | {"imbalance": 50.0, "rare_gap": 0.05}, None),  # a hard class is no rare one
        (LEARNS | {"eval_transform_acc": 0.3}, "val_normalization"),
        (WEAK | {"train_transform_val_acc": 0.12}, "augmentation_too_strong"),
        (LEARNS | {"train_accs": [0.2] * 6, "train_transform_val_acc": 0.3}, None),  # strong, but it learns
        (LEARNS | {"train_transform_val_acc": 0.9}, "augmentation_changes_class"),
        (WEAK | {"dead_share": 0.9, "dead_layer": "conv1"}, "dead_units"),
        (WEAK | {"dead_share": 0.9, "progress": 0.3}, None),  # at the peak of the schedule
        (LEARNS | {"dead_at_start": 0.9}, "init_too_large"),
        (WEAK | {"update_ratio": 0.08, "val_losses": [9999.0, *[1.9] * 5]}, "lr_too_high"),
        (SLOW, None),  # 200 classes take time
        (FITTED | {"dead_share": 0.6}, None),  # harmless
        (FITTED | {"decay_per_step": 0.013}, None),
        (WEAK | {"decay_per_step": 0.013}, "weight_decay_too_strong"),
        (WEAK | {"saturated_share": 0.8, "saturated_layer": "fc1"}, "saturation"),
        (WEAK | {"grad_norm_p99": 40.0, "loss_jump_share": 0.05}, "exploding_gradients"),
        (FITTED | {"grad_norm_p99": 40.0, "loss_jump_share": 0.05}, None),
        (
            STUCK | {"update_ratio": 0.5, "dead_share": 1.0, "loss_jump_share": 0.1, "grad_norm_p99": 99.0},
            "lr_too_high",
        ),
        (
            {"epochs": 0, "steps": 30, "nonfinite_steps": 1, "largest_loss": 50.0, "prior_loss": 1.0, "lr": 1.0},
            "lr_too_high",
        ),
        ({"epochs": 0, "steps": 30, "nonfinite_steps": 1, "largest_loss": 1.2, "prior_loss": 1.0}, "loss_not_finite"),
        (STUCK | {"update_ratio": 1e-6}, "lr_too_low"),
        (STUCK | {"update_ratio": 1e-6, "clipped_share": 1.0, "grad_norm_p90": 2.0}, "clip_too_tight"),
        (LEARNS | {"clipped_share": 1.0}, None),  # Adam does not depend on the scale of gradients
        (STUCK | {"decay_per_step": 0.1}, "weight_decay_too_strong"),
        (STUCK | {"unchanged_share": 0.9, "weight_eps": 7.8e-3, "update_ratio": 1e-6}, "updates_rounded_away"),
        (STUCK | {"unchanged_share": 0.9, "update_ratio": 1e-9}, "lr_too_low"),  # 32-bit floats
        (LEARNS | {"scaler_skip_share": 0.2}, "fp16_overflow"),
        (WEAK | {"dropout_rate": 0.9, "train_accs": [0.13] * 6}, "dropout_too_high"),
        (LEARNS | {"val_acc": 0.2, "permuted_acc": 0.22, "batch_stat_gaps": [0.46, 0.5, 0.6]}, "stale_batch_norm"),
        (WEAK | {"train_losses": [2.3, *[2.0] * 8], "epochs": 9, "train_accs": [0.25] * 9}, "network_too_small"),
        (WEAK | {"output_rank": 0.25}, "network_too_small"),
        (STUCK, "learns_too_little"),
        (STUCK | {"progress": 0.4}, None),  # a plateau can end
        (STUCK | {"linear_z": 15.0, "progress": 0.6}, "learns_too_little"),  # linear classifiers are better
        (STUCK | {"readable_z": 0.5}, "unreadable_labels"),
        (STUCK | {"rectified": 0.8}, "bounded_outputs"),
        (LEARNS | {"rectified": 0.8}, None),
        (LEARNS | {"plain_acc": 0.3, "eval_transform_acc": 0.3}, "evaluation_differs"),
        (LEARNS | {"plain_acc": 0.3, "eval_transform_acc": 0.3, "balanced": 1.0}, None),  # of other images
        (LEARNS | {"dead_share": 0.9}, None),
    ],
)
def test_facts_of_training_lead_to_the_root_cause(facts: dict[str, Any], cause: str | None) -> None:
    assert alarm(facts) == cause


def test_a_silenced_cause_is_no_alarm() -> None:
    facts = {"pixel_std": 60.0, "batch_norm_images": 2}
    assert alarm(facts, "batch_too_small") == "wrong_scale"
    assert alarm(facts, "wrong_scale") == "batch_too_small"


@pytest.mark.parametrize(
    ("facts", "silenced"),
    [
        ({"modules_in_training_mode": 3, "eval_noise": 0.5}, "eval_without_effect"),
        ({"nonfinite_steps": 1, "largest_loss": 50.0, "prior_loss": 1.0}, "lr_too_high"),
        ({"pixel_std": 60.0, "first_loss_excess": 30.0}, "wrong_scale"),
    ],
)
def test_what_a_silenced_cause_produces_is_no_alarm(facts: dict[str, Any], silenced: str) -> None:
    assert alarm(facts) == silenced
    assert alarm(facts, silenced) is None


def test_strength_is_zero_in_the_healthy_range_and_one_beyond_it() -> None:
    rising, falling = SYMPTOMS["near_duplicates"], SYMPTOMS["blind_pixels"]
    assert [strength(value, rising) for value in (0.0, 0.05, 0.1, 0.15, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [strength(value, falling) for value in (1.0, 0.6, 0.5, 0.4, 0.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert strength(1e-4, SYMPTOMS["fading_signal"]) == pytest.approx(0.5)
    assert "near_duplicates" not in symptoms({"near_duplicates": math.nan})


def test_what_was_not_measured_is_listed_with_the_reason_unless_another_symptom_decides() -> None:
    def unknown(facts: dict[str, Any], **failed: str) -> list[str]:
        return report(facts, failed, frozenset())["not_checked"]

    assert "leak (not measured here)" in unknown({})
    for facts in ({}, {"val_copies": 0.0}):
        assert "leak (only python -m project doctor --config FILE shows it)" in unknown({"epochs": 6} | facts)
    assert not any(each.startswith("lr_too_high") for each in unknown(HEALTHY | {"epochs": 1, "nonfinite_steps": 0}))
    assert any(each.startswith("lr_too_high") for each in unknown({"trial_progress": 0.0}))
    assert unknown({}, trial="RuntimeError: too large")[0] == "trial (RuntimeError: too large)"
    lines = terminal(report({}, {"trial": "too large"}, frozenset()))
    assert "Not checked (too large): trial." in lines
    assert lines[-1].startswith("Not checked (not measured here): nan_images, wrong_scale, ")


def test_a_training_is_not_called_healthy_before_it_can_be_known() -> None:
    def verdict(**facts: Any) -> str:
        return report(LEARNS | facts, {}, frozenset())["verdict"]

    assert verdict() == "healthy"
    assert verdict(epochs=2) == "too_early"
    assert verdict(steps=50) == "too_early"
    assert verdict(epochs=1, scaler_skip_share=0.5) == "alarm"
    assert report(STUCK | {"progress": 0.4}, {}, frozenset())["verdict"] == "too_early"
    assert any("--trainer.max_epochs 12" in note for note in report(LEARNS, {}, frozenset())["notes"])


def test_the_remedy_names_the_option_that_has_an_effect() -> None:
    def remedy(**facts: Any) -> dict[str, str]:
        return report(facts, {}, frozenset())["alarms"][0]["remedy"]

    assert remedy(momentum=0.999) == {"option": "model.optimizer.momentum", "value": "0.9"}
    assert remedy(momentum=0.999, has_betas=True)["option"] == "model.optimizer.betas"
    assert remedy(momentum=0.999, cycles_momentum=True)["option"] == "model.lr_scheduler.max_momentum"


def test_the_present_value_of_an_option_and_its_key_are_found_in_the_config() -> None:
    config: Any = {
        "model": {"class_path": "A", "init_args": {"optimizer": {"class_path": "B", "init_args": {"lr": 9.0}}}}
    }
    facts = {"nonfinite_steps": 1, "largest_loss": 50.0, "prior_loss": 1.0, "lr": 9.0}
    alarm = report(facts, {}, frozenset(), config)["alarms"][0]
    assert (alarm["key"], alarm["now"]) == ("model.init_args.optimizer.init_args.lr", 9.0)
    for group, is_option in (({"lr": 1.0, "weight_decay": None}, True), ({"options": {"weight_decay": 1.0}}, False)):
        config["model"]["init_args"]["param_groups"] = [{"pattern": "*"} | group]
        remedy = report({"decay_per_step": 0.2}, {}, frozenset(), config)["alarms"][0]["remedy"]
        assert ("option" in remedy) == is_option
    assert "weight_decay alike in --model.param_groups" in remedy["text"]


@pytest.mark.parametrize(("cause", "way"), [(name, way) for name in CAUSES for way in CAUSES[name].ways])
def test_each_cause_is_described_with_its_numbers_in_at_most_15_lines(cause: str, way: list[str]) -> None:
    facts: dict[str, Any] = {"lr": 0.1, "trial_images": 16, "epochs": 3}
    facts |= {"symmetric_names": ["a"], "no_gradient_names": ["a", "b"], "update_ratio": 5e-3, "unrewarded_names": "x"}
    facts |= dict.fromkeys(("swapped_pair", "moved_pair", "similar_pair", "dead_layer", "saturated_layer"), "x")
    facts |= {"pixel_std": 9.0, "distinct_images": 9, "most_copies": 9}
    facts |= {"step_acc": 0.5, "plain_acc": 0.5, "val_acc": 0.5, "chance": 0.5}
    facts |= {SYMPTOMS[each].fact: 0.5 for each in way}
    entry = entry_of(Finding(CAUSES[cause], 1.0, way), Known(facts), {}, {})
    words = [entry["says"], entry["why"], *entry["remedy"].values()]
    assert not re.search(r"\{\w+\}|None|nan|unknown", " ".join(words))
    assert entry["evidence"].keys() == entry["healthy"].keys()
    assert entry["remedy"].keys() in ({"text"}, {"option", "value"})
    result = {"verdict": "alarm", "alarms": [entry], "alternatives": [entry] * 2, "notes": ["x"] * 9}
    assert len(terminal(result | {"not_checked": [f"x ({number})" for number in range(99)]})) <= 15


def test_the_result_has_at_most_one_alarm_and_two_alternatives_unless_it_is_sure() -> None:
    facts = {"near_duplicates": 0.5, "batch_norm_images": 2, "peak_at": 0.9, "imbalance": 20.0}
    result = report(facts, {}, frozenset({"peak_too_late"}))
    keys = ("verdict", "alarms", "alternatives", "notes", "not_checked", "version")
    assert tuple(result) == keys
    assert [each["cause"] for each in result["alarms"]] == ["leak"]
    assert [each["cause"] for each in result["alternatives"]] == ["batch_too_small"]
    assert result["notes"] == ["peak_too_late is silenced."]
    assert len(terminal(result)) <= 15
    sure = report(facts | {"pixel_std": 60.0}, {}, frozenset())
    assert [each["cause"] for each in sure["alarms"]] == ["wrong_scale"]
    assert sure["alternatives"] == []
