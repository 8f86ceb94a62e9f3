"""The parser of the command line: mistakes as errors of ours, and a help that can be read."""

import os
import re
import sys
from argparse import SUPPRESS
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse._util import config_load_stack
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
import lightning_modules
from project import config_merging
from project.arguments import classes_first, config_files
from project.ranks import is_rank_zero
from project.settings import DuplicateKeyError, read_yaml

register_type(torch.device, str, torch.device)  # StochasticWeightAveraging has one; in a config it could not be read
LINKED = ("class_names", "mean", "std", "image_size", "class_counts")  # from the data to the module


class UsageError(Exception):
    """The command line or a config is not as expected."""


def load(text: str) -> Any:
    """Return the content of a config or of a value, for jsonargparse.

    Raises:
        UsageError: A mapping contains a key twice.
    """
    files = config_load_stack.get()  # (path, name as given) of each file; each is included by the one before
    try:
        content = read_yaml(text, files[-1][len(files) == 1] if files else "the command line")
    except DuplicateKeyError as error:
        raise UsageError(str(error)) from error
    if isinstance(content, dict) and not any(value is not None for value in content.values()):
        return _load(text)  # which keeps "{a}" as a string
    return content


_load = get_loader("yaml")
set_loader("yaml", load, (yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Parser that says a mistake in one line, and lists the options of the usual classes in its help."""

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Parse, report replaced classes, and compare devices with processes, as Lightning does once there is a run."""
        if hasattr(self, "parent_parser") or getattr(self, "_inner_parser", False):  # called within the parser below
            return super().parse_args(args, *rest, **kwargs)
        args = classes_first(sys.argv[1:] if args is None else args)
        files = [file.resolve() for file in config_files(args)]
        if twice := [file for file in files if files.count(file) > 1]:
            raise UsageError(f"Expected each --config once, but got {os.path.relpath(twice[0])} {len(twice)} times.")
        config_merging.reset()
        config = super().parse_args(args, *rest, **kwargs)
        for line in config_merging.replaced_classes(config) if is_rank_zero() else ():
            print(line)
        if "TORCHELASTIC_RUN_ID" in os.environ and "subcommand" in config:
            compare_with_torchrun(config[config.subcommand].trainer)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print below a page of usage."""
        raise UsageError(message) from ex

    def format_help(self, *args: Any) -> str:
        """Add the options of the classes that recipes use: by themselves, any class could stand there."""
        text = shorten_help(super().format_help(*args))
        if "--model" not in self._option_string_actions:
            return text
        extra = LightningArgumentParser(add_help=False, usage=SUPPRESS, description="")
        for cls, key in ((lightning_modules.ImageClassifier, "model"), (datamodules.CIFAR10DataModule, "data")):
            skip = set(LINKED) if key == "model" else None
            extra.add_class_arguments(cls, key, fail_untyped=False, skip=skip)
        return f"{text}\nWith the classes that the recipes use:\n\n{shorten_help(extra.format_help())}"


def compare_with_torchrun(trainer: Any) -> None:
    """Raise MisconfigurationException unless a Trainer's devices are as many as the processes that torchrun started."""
    size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    devices, nodes = trainer.devices, trainer.num_nodes
    if devices == "auto":  # a CPU counts as one
        gpus = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        devices = torch.cuda.device_count() if gpus else 1
    if str(devices).isdecimal() and int(devices) * nodes != size:  # what is no number names single devices
        raise MisconfigurationException(
            f"Expected as many devices as torchrun started processes ({size}), but got {devices} on {nodes} machines: "
            f"give --trainer.devices {here} --trainer.num_nodes {size // here}."
        )


def shorten_help(text: str) -> str:
    """Leave out the names of some hundred modules of torch's, which jsonargparse lists at every option for one."""
    return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", text)
