"""Divide images among train, val and test."""

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence

from datamodules.index import Entry


def divide(entries: Sequence[Entry], fractions: Sequence[float], seed: int) -> list[list[Entry]]:
    """Divide the entries of an index file into parts that have the same mixture of classes.

    The shuffle is Python's own (Mersenne Twister), whose results do not change between versions of NumPy or torch.

    Args:
        entries: Paths and labels.
        fractions: Share of each part; they add up to 1.
        seed: Seed of the shuffle within each class.

    Returns:
        A list for each fraction, in the order of ``entries``; every entry is in exactly one.
    """
    if abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"Expected fractions that add up to 1, but got {list(fractions)}.")
    positions_of = defaultdict(list)
    for position, (_, label) in enumerate(entries):
        positions_of[label].append(position)
    shuffler = random.Random(seed)
    parts: list[list[int]] = [[] for _ in fractions]
    for label in sorted(positions_of):
        positions = positions_of[label]
        shuffler.shuffle(positions)
        cuts = [round(len(positions) * share) for share in itertools.accumulate(fractions)]
        for part, (start, stop) in zip(parts, itertools.pairwise([0, *cuts]), strict=True):
            part.extend(positions[start:stop])
    return [[entries[position] for position in sorted(part)] for part in parts]
