"""``prepare``: prepare images, index files and the cache, and print a summary."""

import time
from typing import TYPE_CHECKING

from rich import print as rich_print
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # torch takes seconds to import
    from datamodules import ImageDataModule

SHOWN = 5  # number of groups of identical images to print


def run(args: list[str]) -> "ImageDataModule":
    """Prepare data.

    Raises:
        SystemExit: The data cannot be prepared.
    """
    from datamodules import ImageDataModule
    from datamodules.preparation.dataset_info import load_description
    from datamodules.preparation.describe import verify
    from project.cli.data_options import data_parser, parse_data
    from project.cli.error_handling import report_errors
    from project.errors import RunError

    with report_errors(["prepare", *args]):
        parser = data_parser("prepare")
        parser.add_argument("--verify", type=bool, nargs="?", const=True, default=False, help="Read every image again.")
        data, options = parse_data(parser, args)
        if not isinstance(data, ImageDataModule):
            raise RunError(f"Expected an ImageDataModule as --data, but got {type(data).__name__}: `fit` prepares it.")
        before = load_description(data.folder.path)
        start = time.perf_counter()
        data.prepare_data()
        seconds = time.perf_counter() - start
        print_summary(data)
        print(f"{data.root}: ready after {seconds:.1f} s.")
        if options.verify:
            verify(data.prepared, before)
            print("Verified: every image file has the pixels that dataset.json describes.")
        return data


def print_summary(data: "ImageDataModule") -> None:
    """Print counts, mean and std, identical and unreadable images, and what decoding discards."""
    from datamodules.preparation.statistics import divisors

    prepared = data.prepared
    stats, counts = prepared.stats, prepared.counts
    table = Table(title=escape(f"Images in {data.root}"))
    table.add_column("class")
    for stage in counts:
        table.add_column(stage, justify="right")
    for name in prepared.class_names:
        table.add_row(escape(name), *(str(of_class[name]) for of_class in counts.values()))
    table.add_section()
    table.add_row("all", *(str(sum(of_class.values())) for of_class in counts.values()))
    rich_print(table)

    for name, values in (("mean", stats.mean), ("std", divisors(stats.std))):
        print(f"{name}: {[round(value, 4) for value in values]}")
    print(f"size: {prepared.size}  # pixels, {data.folder.resize or 'not resized'}")
    print(f"Split: {prepared.split}, in {data.folder.index}")
    print(f"Identical images in more than one of train, val and test: {len(stats.identical)}")
    for group in stats.identical[:SHOWN]:
        print(f"  {' = '.join(group)}")
    print(f"Unreadable images, left out: {len(stats.unreadable)} (dataset.json in {data.folder.path} lists all)")
    for note in [*stats.loss_notes(), *stats.contrast_notes()]:
        print(note)
