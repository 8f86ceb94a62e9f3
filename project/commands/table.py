"""Print tables to a terminal."""

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

UNLIMITED = 10_000  # characters
NUMBERS = ("seed", "epochs", "val", "test", "minutes", "n")  # columns


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without its empty columns; in a file or a pipe, its width is not limited.

    Args:
        title: Line above the table.
        header: Names of the columns.
        rows: Cells, in the order of the header.
    """
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=UNLIMITED if wide else None, markup=False, highlight=False, emoji=False)
    table = Table(box=None, pad_edge=False)
    columns = {name: cells for name, *cells in zip(header, *rows, strict=True) if any(cells)}
    for name in columns:
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    if title:
        console.print(title)
    console.print(table)
