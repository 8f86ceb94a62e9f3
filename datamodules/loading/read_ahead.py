"""Ask the operating system to read images of a cache from disk before they are used."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from datamodules.preparation.cache import HEADER

LEAST = 16_384  # bytes of an image; asking for each smaller one would take longer than copying it from memory


def read_ahead(cache: Path, rows: Iterable[int], nbytes: int) -> None:
    """Start reading rows of ``nbytes`` each without waiting for them; nothing happens where the system offers no way.

    A page of a mapped file is otherwise read when it is first touched, one after the other. Rows that are in memory
    cost a microsecond each.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS and Windows
        return
    with suppress(OSError), cache.open("rb") as file:  # it may be deleted while it is mapped
        for row in rows:
            os.posix_fadvise(file.fileno(), HEADER + row * nbytes, nbytes, os.POSIX_FADV_WILLNEED)
