"""Create a DataModule from the configs and options of ``fit``, for the commands about data."""

from argparse import SUPPRESS
from typing import Any

from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import LightningDataModule, seed_everything

import callbacks  # noqa: F401  # classes can be given by short names once their module is imported
import datamodules  # noqa: F401
from project.cli.check_config import check_data
from project.cli.parser import Parser, parse
from project.runs.options import IGNORED


def data_parser(command: str) -> Parser:
    """Return a parser of ``--config`` and ``--data`` that ignores the other options of ``fit``."""
    parser = Parser(allow_abbrev=False, usage=f"python -m project {command} [--config FILE ...] [--option VALUE ...]")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file; later files override earlier ones.")
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Seed of all random numbers.")
    parser.add_subclass_arguments(LightningDataModule, "data", required=True, fail_untyped=False)  # as fit does
    for name in IGNORED:
        parser.add_argument(f"--{name}", type=Any, default=None, help=SUPPRESS)
    return parser


def parse_data(parser: Parser, args: list[str]) -> tuple[LightningDataModule, Any]:
    """Return the DataModule that a command line describes, and all its options.

    Raises:
        RunError: The data of a run whose config is given does not exist.
        UsageError: The command line cannot be parsed.
        ValueError: The seed is out of range.
    """
    options = parse(parser, args)
    check_data(options)
    if options.seed_everything is not False:
        seed_everything(0 if options.seed_everything is True else options.seed_everything, verbose=False)
    # only data: the ignored classes are not instantiated
    return parser.instantiate(Namespace(data=options.data)).data, options
