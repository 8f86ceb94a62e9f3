import pytest

from project.cli.trial import FEW, LEAST_STEPS, Result, arms_of, judge, steps_of, treat, try_remedy
from project.errors import RunError

REMEDY = {"option": "model.optimizer.weight_decay", "value": "0.0005"}


def trained(score: float, steps: int = 100, seconds: float = 1.0) -> Result:
    return Result(score, images=1000, lr=0.1, planned=100, steps=steps, seconds=seconds)


@pytest.mark.parametrize(
    ("remedy", "untreated", "control", "verdict"),
    [
        ([0.80, 0.82], [0.50, 0.52], [0.60, 0.61], "confirmed"),
        ([0.80, 0.82], [0.50, 0.52], [0.81, 0.82], "not confirmed"),  # any lower learning rate helps as much
        ([0.30, 0.32], [0.50, 0.52], [0.60, 0.61], "not confirmed"),  # it harms
        ([0.80, 0.50], [0.50, 0.60], [0.30, 0.31], "no difference"),  # seeds differ as much
        ([0.505, 0.507], [0.501, 0.502], [0.30, 0.31], "no difference"),  # less than 1,000 images can show
    ],
)
def test_a_remedy_is_confirmed_only_if_it_beats_both_others_by_more_than_the_spread(
    remedy, untreated, control, verdict: str
) -> None:
    scores = {"remedy": remedy, "untreated": untreated, "control": control}
    assert judge(scores, 1000)["verdict"] == verdict


def test_a_remedy_that_lowers_the_learning_rate_has_no_control() -> None:
    assert set(arms_of(REMEDY, 0.1)) == {"remedy", "untreated", "control"}
    assert set(arms_of({"option": "model.optimizer.lr", "value": "0.01"}, 0.1)) == {"remedy", "untreated"}
    assert arms_of({"option": "model.optimizer.lr", "value": "1"}, 0.1)["control"] == {"model.optimizer.lr": 0.01}
    assert set(arms_of(REMEDY, None)) == {"remedy", "untreated"}


def test_trainings_are_as_long_as_the_time_allows() -> None:
    first = trained(0.1, steps=FEW, seconds=1.0)  # a tenth of a second each, and one second around them
    assert steps_of(first, 2.0, trainings=9, minutes=1) == 54
    assert steps_of(first, 2.0, trainings=9, minutes=5) == first.planned
    with pytest.raises(RunError, match=r"use --minutes 0\.8") as error:
        steps_of(first, 2.0, trainings=9, minutes=0.2)
    needed = float(str(error.value).rpartition(" ")[2])
    assert steps_of(first, 2.0, trainings=9, minutes=needed) >= LEAST_STEPS


def test_what_cannot_be_tried_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(args, options, seed, steps):
        if options:
            raise ValueError("no such option")
        return trained(0.1, steps=FEW, seconds=0.01)

    monkeypatch.setattr("project.cli.trial.train", fails)
    assert try_remedy([], {"alarms": [{"remedy": {"text": "Look."}}]}, 1) == "Not tried: the remedy is not an option."
    result = {"alarms": [{"remedy": REMEDY}]}
    assert try_remedy([], result, 1) == "Not tried: ValueError: no such option."
    assert result["alarms"][0]["tried"]["verdict"] == "not tried"
    assert try_remedy([], {"alarms": []}, 1) == "Nothing to try: there is no alarm."


def test_an_interrupt_ends_with_what_is_known() -> None:
    count = 0

    def train(options, seed, steps):
        nonlocal count
        count += 1
        if count > 8:
            raise KeyboardInterrupt
        return trained(0.9 if options == {REMEDY["option"]: REMEDY["value"]} else 0.1, seconds=0.001)

    tried = treat(train, REMEDY, 1)
    assert (tried["verdict"], tried["seeds"]) == ("confirmed", 2)
