from collections import Counter

import pytest

from datamodules import DataError
from datamodules.split import check_fractions, divide, fold_of

ENTRIES = [(f"{i}.png", i % 10) for i in range(1000)]


def test_every_entry_is_in_exactly_one_part() -> None:
    parts = divide(ENTRIES, (0.8, 0.1, 0.1), 666)
    assert [len(part) for part in parts] == [800, 100, 100]
    assert sorted(entry for part in parts for entry in part) == sorted(ENTRIES)


def test_classes_are_in_proportion() -> None:
    for part, count in zip(divide(ENTRIES, (0.8, 0.1, 0.1), 666), (80, 10, 10), strict=True):
        assert Counter(label for _, label in part) == dict.fromkeys(range(10), count)


def test_the_seed_alone_decides() -> None:
    assert divide(ENTRIES, (0.9, 0.1), 1) == divide(ENTRIES, (0.9, 0.1), 1)
    assert divide(ENTRIES, (0.9, 0.1), 1) != divide(ENTRIES, (0.9, 0.1), 2)


def test_the_split_never_changes_between_versions() -> None:
    # written down once: another version of Python or NumPy must not move images between train and test
    _, val = divide([(f"{i}", 0) for i in range(20)], (0.8, 0.2), 666)
    assert [path for path, _ in val] == ["9", "12", "13", "14"]


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (0.9, 0.1, 0.0), (1.2, -0.1, -0.1)])
def test_senseless_fractions_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="add up to 1"):
        check_fractions(fractions)


@pytest.mark.parametrize(("count", "folds"), [(1000, 5), (103, 4), (7, 7)])
def test_every_entry_is_held_out_in_one_fold(count: int, folds: int) -> None:
    entries = ENTRIES[:count]
    held_out = []
    for fold in range(folds):
        train, val = fold_of(entries, folds, fold, 666)
        assert sorted(train + val) == sorted(entries)
        assert len(val) in (count // folds, count // folds + 1)
        shares = Counter(label for _, label in val)
        wanted = Counter(label for _, label in entries)
        assert all(abs(shares[label] - wanted[label] / folds) < 1 for label in wanted)
        held_out += val
    assert sorted(held_out) == sorted(entries)


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="at most the 3 images"):
        fold_of(ENTRIES[:3], 4, 0, 666)
