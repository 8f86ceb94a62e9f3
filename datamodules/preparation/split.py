"""Split images into train, val and test."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction

from datamodules.errors import DataError
from datamodules.preparation.index import Entry

Fractions = tuple[float, float, float]  # of train, val and test


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise DataError unless all ``fractions`` are above 0 and add up to 1."""
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise DataError(
            f"Expected fractions of train, val and test above 0 that add up to 1, but got {list(fractions)}."
        )


def divide(entries: Sequence[Entry], fractions: Sequence[float], seed: int) -> list[list[Entry]]:
    """Split the entries of an index file into two or three parts, stratified by class.

    Entries are shuffled by Python's Mersenne Twister, whose results do not depend on the version of NumPy or torch.

    Returns:
        A list for each fraction, in the order of ``entries``; every entry is in exactly one. Each part has its fraction
        of all entries and, rounded up or down, of each class. The first part has at least one entry of each class, even
        if that makes it larger.
    """
    parts: list[list[int]] = [[] for _ in fractions]
    shuffled = list(_shuffled_by_class(entries, seed))
    for positions, counts in zip(shuffled, _counts(list(map(len, shuffled)), fractions), strict=True):
        cuts = itertools.accumulate(counts, initial=0)
        for part, (start, stop) in zip(parts, itertools.pairwise(cuts), strict=True):
            part.extend(positions[start:stop])
    return [[entries[position] for position in sorted(part)] for part in parts]


def _counts(sizes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Return how many entries of each class go to each part.

    Where the shares of a class are not integers, the remaining entries go to the parts with the largest deficit over
    all classes so far. With two or three parts, no deficit or surplus ever reaches 1.
    """
    shares = [Fraction(share).limit_denominator(10**9) for share in fractions]  # exact: 0.29 of 100 is 29
    counts = [[int(size * share) for share in shares] for size in sizes]
    deficits = [Fraction(0)] * len(shares)
    for size, row in sorted(zip(sizes, counts, strict=True), key=lambda pair: pair[1][0] > 0):
        exact = [size * share for share in shares]
        deficits = [deficit + wanted - count for deficit, wanted, count in zip(deficits, exact, row, strict=True)]
        odd = [part for part, count in enumerate(row) if exact[part] > count]
        odd.sort(key=lambda part: (part > 0 or row[0] > 0, -deficits[part]))  # the first part needs every class
        for part in odd[: size - sum(row)]:
            row[part] += 1
            deficits[part] -= 1
    return counts


def fold_of(entries: Sequence[Entry], folds: int, fold: int, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Return the training and the held-out entries of one fold of a stratified k-fold cross-validation.

    Every entry is held out in exactly one fold, counted from 0, if ``seed`` is the same for all. Sizes of folds differ
    by at most one entry, in total and for each class.

    Raises:
        DataError: There are fewer entries than folds.
    """
    if len(entries) < folds:
        raise DataError(f"Expected --data.folds of at most {len(entries)}, the number of images, but got {folds}.")
    positions = itertools.chain.from_iterable(_shuffled_by_class(entries, seed))  # dealt like cards, class by class
    held_out = {position for turn, position in enumerate(positions) if turn % folds == fold}
    train = [entry for position, entry in enumerate(entries) if position not in held_out]
    return train, [entries[position] for position in sorted(held_out)]


def _shuffled_by_class(entries: Sequence[Entry], seed: int) -> Iterator[list[int]]:
    """Yield the positions of the entries of each class in random order, drawn from one generator."""
    positions_of = defaultdict(list)
    for position, (_, label) in enumerate(entries):
        positions_of[label].append(position)
    shuffler = random.Random(seed)
    for label in sorted(positions_of):
        shuffler.shuffle(positions_of[label])
        yield positions_of[label]
