"""Print tables to a terminal."""

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

UNLIMITED = 10_000  # characters
NUMBERS = ("seed", "epochs", "val", "test", "minutes", "n")  # columns


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], first_to_go: Sequence[str] = ()
) -> None:
    """Print a table without its empty columns; in a file or a pipe, its width is not limited.

    Args:
        title: Line above the table.
        header: Names of the columns.
        rows: Cells, in the order of the header.
        first_to_go: Columns to drop, in this order, if the terminal is too narrow; they are named below the table.
    """
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=UNLIMITED if wide else None, markup=False, highlight=False, emoji=False)
    columns = {name: cells for name, *cells in zip(header, *rows, strict=True) if any(cells)}
    dropped: list[str] = []
    while True:
        table = Table(box=None, pad_edge=False)
        for name in columns:
            table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        width = Measurement.get(console, console.options.update(max_width=UNLIMITED), table).maximum
        first = next((name for name in first_to_go if name in columns), None)
        if width <= console.width or first is None:
            break
        del columns[first]
        dropped.append(first)
    if title:
        console.print(title)
    console.print(table)
    if dropped:
        console.print(f"Not shown, because the terminal is too narrow: {', '.join(dropped)}.")
