"""The parser of the command line: it raises UsageError, reads YAML as this project does, and shortens the help text."""

import re
from argparse import SUPPRESS
from collections.abc import Sequence
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
from project.cli.library_weights import expand_timm
from project.cli.named_callbacks import resolve_callbacks
from project.errors import UsageError
from project.resume.ranks import is_rank_zero
from project.runs.config import CONFIG, read_yaml, write_yaml

register_type(torch.device, str, torch.device)  # an argument of StochasticWeightAveraging; jsonargparse cannot parse it
# arguments without a type, such as the list of torchvision's Compose, may be classes: configs are trusted
set_parsing_settings(instantiate_subclass_spec_in_any=True)
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
    content = expand_timm(content)
    if isinstance(content, dict) and not any(value is not None for value in content.values()):
        return _load(text)  # which keeps "{a}" as a string
    return content


_load, _serialize = get_loader("yaml"), _typehints.serialize_as_import_path
set_loader("yaml", load, (yaml.YAMLError,))
set_dumper("yaml", write_yaml)
# for an argument of type `Callable | str`, jsonargparse would write a string as an object without an import path
_typehints.serialize_as_import_path = lambda value: value if isinstance(value, str) else _serialize(value)


def parse(parser: LightningArgumentParser, args: Sequence[str]) -> Namespace:
    """Return the options of a command line, and print which classes it replaces."""
    config_merging.replaced_classes()  # of a command line that could not be parsed
    config = parser.parse_args(args)
    for line in config_merging.replaced_classes() if is_rank_zero() else ():
        print(line)
    return config


class Parser(LightningArgumentParser):
    """Parser that raises UsageError, and lists the options of the default classes in its help."""

    def _dump_cleanup_actions(self, cfg: Any, actions: Any, dump_kwargs: Any, prefix: str = "") -> None:
        """Leave out defaults that YAML cannot represent, such as ``nn.ReLU()``: parsing restores them.

        Raises:
            UsageError: A value that YAML cannot represent is not the default.
        """
        of_types = {prefix + action.dest: action for action in actions if isinstance(action, _typehints.ActionTypeHint)}
        values = {key: cfg.get(key) for key in of_types}
        super()._dump_cleanup_actions(cfg, actions, dump_kwargs, prefix)
        for key, value in values.items():
            if key in cfg and not is_plain(cfg[key]):
                if value is not of_types[key].default and value != of_types[key].default:
                    raise UsageError(f"{UNREADABLE} {key} is {value}.")
                cfg.pop(key)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(message) from ex

    def format_help(self, *args: Any) -> str:
        """Return the help text, first with the options of the default classes of model and data.

        The lists of known subclasses are removed: for a ``torch.nn.Module``, jsonargparse lists more than a hundred.
        """
        usage, _, text = super().format_help(*args).partition("\n\n")
        if "--model" in self._option_string_actions:
            of_classes = LightningArgumentParser(add_help=False, usage=SUPPRESS)
            for key, cls in DEFAULT_CLASSES.items():
                skip = set(LINKED) if key == "model" else None
                of_classes.add_class_arguments(cls, key, fail_untyped=False, skip=skip)
                of_classes._action_groups[-1].title = f"Options of {cls.__name__}, the default class of --{key}"
            text = f"{of_classes.format_help()}\n{text}"
        return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", f"{usage}\n\n{text}")


def is_plain(value: Any) -> bool:
    """Return whether YAML can represent a value."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return all(isinstance(key, SCALARS) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, SCALARS) and not str(value).startswith(UNSAVED)


def text_to_save(parser: LightningArgumentParser, command: str, config: Any) -> str:
    """Return the config that reproduces a command, without the options that apply only to this start."""
    config = config.clone()
    if config.get("data.init_args.overwrite_split"):
        config["data.init_args.overwrite_split"] = False
    if command == "fit" and config.run is not None:
        config.run = config.ckpt_path = None
    # without validating the config again, which takes three times as long
    return parser.dump(config, skip_unset=False, skip_validation=True)
