import itertools
import random
from collections import Counter

import pytest

from datamodules import DataError
from datamodules.preparation.split import check_fractions, divide, fold_of

ENTRIES = [(f"{i}.png", i % 10) for i in range(1000)]


def test_the_split_depends_only_on_the_seed_and_never_changes_between_versions() -> None:
    assert divide(ENTRIES, (0.9, 0.1), 1) == divide(ENTRIES, (0.9, 0.1), 1) != divide(ENTRIES, (0.9, 0.1), 2)
    # recorded once: another version of Python or NumPy must not move images between train and test
    _, val = divide([(f"{i}", 0) for i in range(20)], (0.8, 0.2), 666)
    assert [path for path, _ in val] == ["9", "12", "13", "14"]


SIZES = {
    "60 classes of 6": [6] * 60,
    "one large class": [40, *[6] * 60],
    "one large class last": [*[6] * 60, 40],
    "two classes of 205": [205, 205],
    "three classes of 11 and others": [11, 11, 11, 7],
    "small classes": [5, 4, 3, 2] * 20,
}
THREE = [(0.8, 0.1, 0.1), (0.7, 0.15, 0.15), (0.5, 0.3, 0.2), (0.34, 0.33, 0.33)]


@pytest.mark.parametrize("fractions", [*THREE, (0.9, 0.1), (8 / 9, 1 / 9)])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_shares_are_those_of_the_whole_and_of_each_class(sizes: list[int], fractions: tuple[float, ...]) -> None:
    entries = [(f"{label}/{i}.png", label) for label, size in enumerate(sizes) for i in range(size)]
    parts = divide(entries, fractions, 666)
    assert sorted(entry for part in parts for entry in part) == sorted(entries)
    for part, share in zip(parts, fractions, strict=True):
        assert abs(len(part) - len(entries) * share) < 1
        counts = Counter(label for _, label in part)
        assert all(abs(counts[label] - size * share) < 1 for label, size in enumerate(sizes))
    assert {label for _, label in parts[0]} == set(range(len(sizes)))


def test_train_has_an_image_of_each_class_for_any_fraction() -> None:
    entries = [(f"{i}.png", i // 2) for i in range(100)]
    assert [len(part) for part in divide(entries, (0.2, 0.4, 0.4), 666)] == [50, 25, 25]


@pytest.mark.parametrize("fractions", [*THREE, (0.9, 0.1), (0.29, 0.36, 0.35)])
def test_classes_with_whole_shares_are_cut_one_by_one(fractions: tuple[float, ...]) -> None:
    # as in every version: the index files of CIFAR-10 must not change
    entries = [(f"{label}/{i}.png", label) for label, size in enumerate((100, 300, 100, 5000)) for i in range(size)]
    cuts = list(itertools.pairwise(itertools.accumulate(fractions, initial=0)))
    shuffler, expected = random.Random(666), [[] for _ in fractions]
    for label in range(4):
        shuffled = [entry for entry in entries if entry[1] == label]
        shuffler.shuffle(shuffled)
        for part, (start, stop) in zip(expected, cuts, strict=True):
            part += shuffled[round(start * len(shuffled)) : round(stop * len(shuffled))]
    assert [sorted(part) for part in divide(entries, fractions, 666)] == [sorted(part) for part in expected]


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (0.9, 0.1, 0.0)])
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
        shares, wanted = (Counter(label for _, label in part) for part in (val, entries))
        assert all(abs(shares[label] - wanted[label] / folds) < 1 for label in wanted)
        held_out += val
    assert sorted(held_out) == sorted(entries)


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="at most 3, the number of images"):
        fold_of(ENTRIES[:3], 4, 0, 666)
