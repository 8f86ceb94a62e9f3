import json

from benchmark_doctor import CAUSES, SHOWN, draw, hurts, printed, read, table, wilson, write
from doctor_baselines import autotrainer, sagemaker
from PIL import Image

OWN = {"nonfinite": False, "least_gradient": 1e-4, "least_update": 1e-4, "largest_update": 0.1}
OWN |= {"first_to_last": [1.0] * 10, "first_norm": [1.0] * 10, "zeros": [0.3] * 10}
CURVES = {"train_accs": [0.3, 0.5, 0.6, 0.8], "val_accs": [0.3, 0.5, 0.6, 0.75]}
CURVES |= {"train_losses": [2.0, 1.5, 1.0, 0.8], "val_losses": [2.0, 1.5, 1.1, 0.85]}


def test_shares_have_wilsons_interval() -> None:
    assert wilson(0, 60) == "0 of 60, 0% [0%, 6%]"
    assert wilson(9, 10) == "9 of 10, 90% [60%, 98%]"


def test_a_fault_hurts_if_it_is_worse_than_all_twins_or_promises_more() -> None:
    twins = [{"val": 0.90, "test": 0.88}, {"val": 0.80, "test": 0.82}]
    assert not hurts({"scores": {"val": 0.77, "test": 0.80}}, twins)
    assert hurts({"scores": {"val": 0.70, "test": 0.80}}, twins)
    assert hurts({"scores": {"val": 0.99, "test": 0.80}}, twins)


def test_an_alarm_in_the_middle_counts_only_if_the_next_judgement_repeats_it() -> None:
    assert printed(["too_early", "lr_too_high", "healthy"]) == ""
    assert printed(["too_early", "lr_too_high", "lr_too_high", "healthy"]) == "lr_too_high"
    assert printed(["leak", "healthy"]) == "leak"
    assert printed(["healthy", "overfitting"]) == "overfitting"


def test_published_rules_are_silent_in_a_healthy_training_and_fire_otherwise() -> None:
    assert autotrainer(CURVES, OWN) == sagemaker(CURVES, OWN) == []
    low = CURVES | {"train_accs": [0.1] * 4, "val_accs": [0.1] * 4}
    assert autotrainer(low, OWN) == ["slow"]
    assert autotrainer(low, OWN | {"zeros": [0.8] * 10}) == ["relu"]
    assert sagemaker(CURVES | {"val_losses": [2.0, 1.7, 1.6, 1.7]}, OWN) == ["Overfit"]


def test_the_last_row_of_a_case_counts_in_the_table(tmp_path) -> None:
    row = {"half": "development", "network": "lenet", "data": "digits", "mode": "training", "case": "lr_5"}
    row |= {"expected": ["lr_too_high"], "hurts": True, "family": "learning_rate", "autotrainer": [], "sagemaker": []}
    for cause in ("lr_too_low", "lr_too_high"):
        write(tmp_path / "rows.jsonl", row | {"cause": cause})
    rows = [*read(tmp_path / "rows.jsonl").values()]
    assert json.loads(json.dumps(rows)) == rows
    line = next(each for each in table(rows) if each.startswith("| development | training | doctor"))
    assert line.split(" | ")[5].startswith("1 of 1")


def test_the_picture_shows_known_causes(tmp_path) -> None:
    rows = {}
    for network, data, fault in map(str.split, SHOWN.values()):
        rows |= {(network, data, "training", case): {"facts": CURVES} for case in (fault, "healthy_plain")}
    draw(rows, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1800, 1240)
    assert CAUSES.keys() >= SHOWN.keys()
