"""Write files so that a reader, or a process that continues after a kill, never sees half a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_atomically(path: Path, suffix: str = ".partial", durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` at the end, or remove it after an error.

    A killed process leaves the temporary file, which the next one overwrites.

    Args:
        path: The file; its folder must exist.
        suffix: End of the temporary name. Processes that may write the same file at the same time need distinct ones.
        durable: Flush to the disk before renaming; otherwise, a power failure may leave an empty file.
    """
    partial = path.with_name(path.name + suffix)
    try:
        yield partial
        if durable:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
