"""``prepare``: prepare images, index files and the cache, and print a summary."""

import time
from typing import TYPE_CHECKING

import yaml
from rich import print as rich_print
from rich.markup import escape
from rich.table import Table

from project.errors import RunError

if TYPE_CHECKING:  # torch takes seconds to import
    from datamodules import DatasetInfo, ImageDataModule

SHOWN = 5  # number of groups of identical images, and of problems, to print


def run(args: list[str]) -> "ImageDataModule":
    """Prepare data; with ``--verify``, also check every image file.

    Raises:
        SystemExit: The data cannot be prepared, or differs from what was written.
    """
    from project.cli.data_options import data_parser, parse_data
    from project.cli.error_handling import report_errors

    with report_errors(["prepare", *args]):
        parser = data_parser("prepare")
        parser.add_argument("--verify", type=bool, nargs="?", const=True, default=False, help="Check every image file.")
        data, options = parse_data(parser, args)
        was_prepared = data.is_prepared()
        if options.verify and was_prepared:  # first, because preparation would treat damaged images as edited
            _verify(data)
        start = time.perf_counter()
        description = data.description
        seconds = time.perf_counter() - start
        print_summary(data, description)
        print(f"{data.root}: ready after {seconds:.1f} s.")
        if options.verify and not was_prepared:
            _verify(data)
        return data


def print_summary(data: "ImageDataModule", description: "DatasetInfo") -> None:
    """Print counts, mean and std, identical and unreadable images, and what decoding discards."""
    from datamodules.preparation.statistics import divisors

    table = Table(title=escape(f"Images in {data.root}"))
    table.add_column("class")
    for stage in description.counts:
        table.add_column(stage, justify="right")
    for name in description.class_names:
        table.add_row(escape(name), *(str(counts[name]) for counts in description.counts.values()))
    table.add_section()
    table.add_row("all", *(str(sum(counts.values())) for counts in description.counts.values()))
    rich_print(table)

    pixels = description.pixels[data.store.key]
    used = {"mean": pixels.mean, "std": divisors(pixels.std)}
    numbers = {name: [round(value, 4) for value in values] for name, values in used.items()}
    print(yaml.safe_dump(numbers, default_flow_style=None), end="")
    print(f"size: {data.store.size}  # pixels, {data.store.resize or 'not resized'}")
    print(f"Split: {description.split}")
    print(f"Identical images in more than one of train, val and test: {len(pixels.identical)}")
    for group in pixels.identical[:SHOWN]:
        print(f"  {' = '.join(group)}")
    if len(pixels.identical) > SHOWN:
        print(f"  and {len(pixels.identical) - SHOWN} more: {data.store.folder / 'dataset.json'}")
    print(f"Unreadable images, left out: {len(pixels.unreadable)}")
    for reason in list(pixels.unreadable.values())[:SHOWN]:
        print(f"  {reason}")
    for note in [*pixels.loss_notes(), *pixels.contrast_notes()]:
        print(note)


def _verify(data: "ImageDataModule") -> None:
    problems = data.verify()
    for problem in problems[:SHOWN]:
        print(f"  {problem}")
    if problems:
        raise RunError(
            f"Expected {data.root} to be such that {data.verified}, but {len(problems)} are not. {data.repair_hint}"
        )
    print(f"Verified: {data.verified}.")
