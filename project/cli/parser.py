"""The parser of the command line: it raises UsageError, and shortens the help text."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace, _typehints, get_loader, set_dumper, set_loader, set_parsing_settings
from jsonargparse._util import config_load_stack
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

import datamodules
import lightning_modules
from project.cli import config_merging
from project.cli.named_callbacks import expand_callbacks, resolve_callbacks
from project.errors import RunError, UsageError
from project.resume.ranks import is_rank_zero
from project.runs.command_line import classes_first, config_files, option_of, split_options
from project.runs.config import CONFIG, load_config, nested, read_yaml, setting, write_yaml
from project.runs.folders import paths_from_here
from project.runs.options import ROOT

register_type(torch.device, str, torch.device)  # an argument of StochasticWeightAveraging; jsonargparse cannot parse it
# arguments without a type, such as the list of torchvision's Compose, may be classes: configs are trusted
set_parsing_settings(instantiate_subclass_spec_in_any=True)
# first options of groups
HELP_ORDER = ("--model", "--data", "--callbacks", "-h", "--ckpt_path", "--checkpoint", "--trainer")
DEFAULT_CLASSES = {"model": lightning_modules.ImageClassifier, "data": datamodules.CIFAR10DataModule}
LINKED = ("class_names", "mean", "std", "image_size", "class_counts")  # arguments of the module, set from the data

SCALARS = (str, int, float, type(None))
UNSAVED = "Unable to serialize instance "  # what jsonargparse writes for an object without an import path
UNREADABLE = f"Expected settings that can be saved in {CONFIG} and read back, but"


def load(text: str) -> Any:
    """Return the content of a config or of a value, for jsonargparse.

    Raises:
        RunError: A mapping contains a key twice.
    """
    files = config_load_stack.get()  # (path, name as given) of each file; each is included by the one before
    content = read_yaml(text, files[-1][len(files) == 1] if files else "the command line")
    resolve_callbacks(content)
    if isinstance(content, dict) and not any(value is not None for value in content.values()):
        return _load(text)  # which keeps "{a}" as a string
    return content


_load, _serialize = get_loader("yaml"), _typehints.serialize_as_import_path
set_loader("yaml", load, (yaml.YAMLError,))
set_dumper("yaml", write_yaml)
# for an argument of type `Callable | str`, jsonargparse would write a string as an object without an import path
_typehints.serialize_as_import_path = lambda value: value if isinstance(value, str) else _serialize(value)


def with_paths(args: Sequence[str]) -> list[str]:
    """Return a command line in which paths in configs of runs are relative to the working directories of these runs."""
    result = []
    for group in split_options(args):
        result += group
        name, value = option_of(group)
        if name == "config" and value is not None and os.path.basename(value) == CONFIG and os.path.isfile(value):
            paths = paths_from_here(Path(value).parent)
            result += ["--config", json.dumps(nested(paths))] if paths else []
    return result


def check_root(args: Sequence[str], config: Any) -> None:
    """Check that the images of a run exist, if it was started from another directory.

    Raises:
        RunError: They are missing, and would be downloaded again.
    """
    for run in (file.parent for file in config_files(args) if file.name == CONFIG):
        root = paths_from_here(run).get(ROOT)
        if root is not None and str(config.get(ROOT)) == root and not os.path.exists(root):
            raise RunError(
                f"Expected the images of {run} in {root}, as when it was started, but this directory does not exist. "
                "Set --data.root."
            )


def ordered(args: Sequence[str] | None) -> list[str]:
    """Return a command line with classes before their arguments, names of callbacks expanded and paths resolved."""
    return with_paths(expand_callbacks(classes_first(sys.argv[1:] if args is None else args)))


def parse_given(parser: LightningArgumentParser, args: Sequence[str] | None) -> Any:
    """Return only what a command line and its configs set, without defaults."""
    return LightningArgumentParser.parse_args(parser, ordered(args), defaults=False)


class Parser(LightningArgumentParser):
    """Parser that raises UsageError, and lists the options of the default classes in its help."""

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Parse, report replaced classes, and check that the images of a run exist."""
        if hasattr(self, "parent_parser") or getattr(self, "_inner_parser", False):  # called by this method
            return super().parse_args(args, *rest, **kwargs)
        args = ordered(args)
        config_merging.replaced_classes()  # of a command line that could not be parsed
        try:
            config = super().parse_args(args, *rest, **kwargs)
        except UsageError as error:
            command = self if self._subcommands_action is None else self._subcommands_action.choices[args[0]]
            error.options = [option.removeprefix("--") for option in command._option_string_actions]
            raise
        for line in config_merging.replaced_classes() if is_rank_zero() else ():
            print(line)
        check_root(args, config[config.subcommand] if "subcommand" in config else config)
        return config

    def _dump_cleanup_actions(self, cfg: Any, actions: Any, dump_kwargs: Any, prefix: str = "") -> None:
        """Leave out defaults that YAML cannot represent, such as ``nn.ReLU()``: parsing restores them.

        Raises:
            UsageError: A value that YAML cannot represent is not the default.
        """
        of_types = {prefix + action.dest: action for action in actions if isinstance(action, _typehints.ActionTypeHint)}
        values = {key: cfg.get(key) for key in of_types}
        for key, value in values.items():
            if isinstance(value, set | frozenset):  # its order differs between processes
                cfg[key] = sorted(value, key=repr)
        super()._dump_cleanup_actions(cfg, actions, dump_kwargs, prefix)
        for key, value in values.items():
            if key in cfg and not is_plain(cfg[key]):
                if value is not of_types[key].default and value != of_types[key].default:
                    raise UsageError(f"{UNREADABLE} {key} is {value}.")
                cfg.pop(key)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        raise UsageError(message) from ex

    def format_help(self, *args: Any) -> str:
        """Return the help text, first with the options of model and data, including those of their default classes."""
        if "--model" not in self._option_string_actions:
            return shorten_help(super().format_help(*args))
        groups = self._action_groups
        of_classes = LightningArgumentParser(add_help=False)
        for key, cls in DEFAULT_CLASSES.items():
            of_classes.add_class_arguments(cls, key, fail_untyped=False, skip=set(LINKED) if key == "model" else None)
            group = of_classes._action_groups[-1]
            group.title = f"Options of {cls.__name__}, the default class of --{key}"
            del group._group_actions[0]  # --model or --data itself
        self._action_groups = sorted([*groups, *of_classes._action_groups], key=_place)
        try:
            return shorten_help(super().format_help(*args))
        finally:
            self._action_groups = groups


def _place(group: Any) -> int:
    """Return the place of a group of options in the help text."""
    if not group._group_actions:  # only the paragraph about callbacks
        return HELP_ORDER.index("--callbacks")
    option = group._group_actions[0].option_strings[0].partition(".")[0]
    return HELP_ORDER.index(option) if option in HELP_ORDER else len(HELP_ORDER)


def is_plain(value: Any) -> bool:
    """Return whether YAML can represent a value."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return all(isinstance(key, SCALARS) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, SCALARS) and not str(value).startswith(UNSAVED)


def text_of(parser: LightningArgumentParser, config: Any) -> str:
    """Return a config as YAML with all its values, without validating it again, which takes three times as long."""
    return parser.dump(config, skip_unset=False, skip_validation=True)


def text_to_save(parser: LightningArgumentParser, command: str, config: Any) -> str:
    """Return the config that reproduces a command, without the options that apply only to this start."""
    config = config.clone()
    if config.get("data.init_args.overwrite_split"):
        config["data.init_args.overwrite_split"] = False
    if command == "fit" and config.run is not None:
        run = Path(config.run)
        for key, path in paths_from_here(run).items():
            if config.get(key) == path:
                config[key] = setting(load_config(run), key)
        config.run = config.ckpt_path = None
    return text_of(parser, config)


def shorten_help(text: str) -> str:
    """Remove the lists of known subclasses: for a ``torch.nn.Module``, jsonargparse lists more than a hundred."""
    return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", text)
