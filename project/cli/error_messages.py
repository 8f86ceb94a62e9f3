"""Shorten errors of jsonargparse, torch and the operating system to messages for the user."""

import importlib
import os
import re
import site
import sysconfig
import traceback
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

import yaml
from lightning.pytorch import Callback

import callbacks
import datamodules
import lightning_modules
import lightning_modules.networks
from project.cli.unknown_options import UNKNOWN_KEY, unknown_option
from project.errors import did_you_mean
from project.runs.command_line import config_files
from project.runs.config import read_yaml

INSTALLED = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *site.getsitepackages(), "<frozen"})
PROJECT_MODULES = (callbacks, datamodules, lightning_modules, lightning_modules.networks)
CLASS_ERROR = r"class_path '(\S+?)'|a dot import path string: (\S+)|module '([\w.]+)' has no attribute '(\w+)'"
LONGEST = 300  # characters of a message of jsonargparse's


def root_cause(error: BaseException) -> BaseException:
    """Return the error that jsonargparse wrapped for an argument whose type is a class or None."""
    while isinstance(error, ValueError) and "Does not validate" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Return the message of an error of this project, or of the operating system with the line that caused it."""
    message = str(error).strip()
    if message.startswith("Caught "):  # an error in a DataLoader worker: torch adds the traceback before the reason
        return message.splitlines()[-1].partition(": ")[2]
    place = _own_line(error) if isinstance(error, OSError) else ""
    return f"{message}{place}"


def callback_hook(error: BaseException) -> str | None:
    """Return the callback and hook that an error came from, such as "GradientNorm.on_train_start"."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, Callback) and hasattr(Callback, frame.f_code.co_name):
            return f"{type(owner).__name__}.{frame.f_code.co_name}"
    return None


def short_traceback(error: BaseException) -> str:
    """Return the frames of a traceback outside installed packages, and the error."""
    lines = traceback.format_list(_own_frames(error))
    reason = "".join(traceback.format_exception_only(error)).strip()
    hook = callback_hook(error)
    error_line = f"error: {f'in callback {hook}: ' if hook else ''}{reason}"
    return f"{''.join(lines)}{error_line}\nFrames of installed packages are hidden. To show them, set PROJECT_DEBUG=1."


def parser_message(message: str, args: list[str], options: Collection[str] = ()) -> str:
    """Return an error message of jsonargparse in one line, with the closest valid name.

    Args:
        message: The message.
        args: Command line that it is about.
        options: Names of all options, except those of classes.
    """
    if match := re.search(r"Expected each key once.*", message):  # in a file that a config names
        return match[0]
    if re.search(UNKNOWN_KEY, message):
        return unknown_option(message, args, options)
    if re.search(r"arguments are required: \w+\.(data|model)", message):
        if args[0] == "fit":
            if config_files(args):
                return (
                    "Expected a recipe, but got no model or data. Put the --config of a recipe, such as "
                    "configs/resnet.yaml, before that of an overlay."
                )
            return "Expected a recipe, but got no model and data. Add --config configs/resnet.yaml."
        return (
            f"Expected weights to {args[0]}. Set --run last, best or DIRECTORY, or --config FILE and --ckpt_path FILE."
        )
    if match := re.search(CLASS_ERROR, message):
        path = match[1] or match[2] or f"{match[3]}.{match[4]}"
        if problem := _class_problem(path):
            return problem
    if match := re.search(r"File does not exist: '(.+?)'", message):
        return _missing_file(Path(match[1]))
    if re.search("Problems parsing config|Unexpected config", message) and (problem := _yaml_problem(args)):
        return problem
    keys = re.findall(r'Parser key "(.+?)":', message)  # from the outermost to the innermost
    if match := re.search(r"arguments are required: ([\w.]+)", message):
        return _required(match[1], message, keys)
    inner = message.rpartition('Parser key "')[2]
    if keys and (match := re.search(r"Not of type \w+: (\S+) does not .*restriction v(\S+)", inner)):
        return f"Expected {keys[-1]} {match[2]}, but got {match[1]}."
    types = re.search(r"Subtypes: \[(.+)\]|Expected an? (.+?)\. Got value|Not of type (\w+)", inner)
    value = re.search(r"(?:Given|Got) value: (?:NestedArg\(.*val=(.*)\)|(.*))", inner)
    if keys and types and value:
        names = re.sub(r"<class '(.+?)'>", r"\1", types[types.lastindex or 0]).replace(", NoneType", "")
        got = (value[1] or value[2]).strip("'")
        return f"Expected {re.sub(r'[a-z_]+[.]', '', names)} for {keys[-1]}, but got {got}."
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _required(name: str, message: str, keys: list[str]) -> str:
    """Return a message with the option that sets a required argument of a class."""
    inner = re.search(rf"(\w+)=Namespace\(class_path='[\w.]+', init_args=Namespace\({name}=None", message)
    option = ".".join([*keys, *([inner[1]] if inner and inner[1] not in keys else []), name])
    return f"Expected a value for {name}, but got none. Add --{option} VALUE, or `{name}: VALUE` to the config."


def _missing_file(file: Path) -> str:
    file = Path(os.path.relpath(file))
    hint = did_you_mean(file.name, [other.name for other in file.parent.glob("*")], f"{file.parent}/{{}}")
    return f"Expected a file, but {file} does not exist.{hint}"


def _yaml_problem(args: list[str]) -> str | None:
    for file in config_files(args):
        try:
            content = read_yaml(file.read_text(), str(file))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            return f"{file}:{line} is not YAML: {error.problem}."
        if not isinstance(content, dict):
            what = "it is empty" if content is None else f"got {type(content).__name__}"
            return f"Expected `key: value` lines in {file}, but {what}."
    return None


def _class_problem(path: str) -> str | None:
    """Return why a class cannot be imported by its path, or None if it can."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        known = {name: f"{module.__name__}.{name}" for module in PROJECT_MODULES for name in module.__all__}
        near = get_close_matches(name, known, 1)
        hint = f" Did you mean {known[near[0]]}?" if near else ""
        return f"Expected the import path of a class, such as callbacks.ConfusionMatrix, but got {path!r}.{hint}"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise any exception
        if not isinstance(error, ModuleNotFoundError) or not f"{module_name}.".startswith(f"{error.name}."):
            return f"{path} cannot be imported: {type(error).__name__}: {error}{_own_line(error)}."
        top = {file.stem for file in Path.cwd().glob("*.py")} | {module.__name__ for module in PROJECT_MODULES}
        hint = did_you_mean(module_name, top, f"{{}}.{name}") or " Is its file in the working directory?"
        return f"Expected a class at {path!r}, but there is no module {error.name!r}.{hint}"
    if hasattr(module, name):
        return None
    hint = did_you_mean(name, dir(module), f"{module_name}.{{}}")
    return f"Expected a class at {path!r}, but {module_name} has no {name!r}.{hint}"


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback that lie outside installed packages."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(INSTALLED)]


def _own_line(error: BaseException) -> str:
    frames = _own_frames(error)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
