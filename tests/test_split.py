from collections import Counter

import pytest

from datamodules.split import divide

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


def test_fractions_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        divide(ENTRIES, (0.8, 0.1), 0)
