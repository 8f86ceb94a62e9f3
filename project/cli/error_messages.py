"""Shorten errors of jsonargparse, torch and the operating system to messages for the user."""

import importlib
import inspect
import os
import re
import site
import sys
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
from project.runs.command_line import config_files

INSTALLED = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *site.getsitepackages(), "<frozen"})
PROJECT_MODULES = (callbacks, datamodules, lightning_modules, lightning_modules.networks)
LONGEST = 300  # characters of a message of jsonargparse's


def root_cause(error: BaseException) -> BaseException:
    """Return the error that jsonargparse wrapped for an argument whose type is a class or None."""
    while isinstance(error, ValueError) and "Does not validate" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Return the message of an error of this project, or of the operating system with the line that caused it."""
    message = str(error)
    if message.startswith("Caught "):  # an error in a DataLoader worker: torch adds the traceback before the reason
        return message.strip().splitlines()[-1].partition(": ")[2]
    place = _own_line(error) if isinstance(error, OSError) else ""
    return f"{message}{place}"


def is_of_another_network(error: BaseException) -> bool:
    """Return whether an error means that a checkpoint does not match the network."""
    return isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error)


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
    if match := re.search(r"Expected a path but (\S+) either not accessible|class_path '(\S+?)'", message):
        path = next(filter(None, match.groups()))
        if re.fullmatch(r"[\w.]*\.\w+|[A-Z]\w*", path) and (problem := _class_problem(path)):
            return problem
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):  # in the arguments of another class
        return _class_problem(f"{match[1]}.{match[2]}") or " ".join(message.split())
    if match := re.search(r"File does not exist: '(.+?)'", message):
        return _missing_file(Path(match[1]))
    if re.search("Problems parsing config|Unexpected config", message) and (problem := _yaml_problem(args)):
        return problem
    if match := re.search(r'Parser key "([\w.]+)":\s+Not of type \w+: (\S+) does not .* restriction v(.+)', message):
        return f"Expected {match[1]} {match[3]}, but got {match[2]}."
    if match := re.search(
        r'"(\w+)":(?:(?!Parser key)[\s\S])*does not conform to restriction v(\S+)[\s\S]*?Given value: (\S+)', message
    ):
        return f"Expected {match[1]} {match[2]}, but got {match[3]}."
    if match := re.search(r"Import path (\S+) does not implement protocol BatchTransform", message):
        return (
            f"Expected a transform of batches, such as datamodules.RandomCrop, but got {match[1]}. Put transforms of "
            "single images below train_transforms."
        )
    keys = re.findall(r'Parser key "(.+?)":', message)  # from the outermost to the innermost
    if match := re.search(r"arguments are required: ([\w.]+)", message):
        return _required(match[1], message, keys)
    value = re.search(r"NestedArg\(.*val=(.*)\)|(?:Given value|Got value): (.*)", message)
    if keys and value:
        types = list(dict.fromkeys(re.findall(r"Expected an? (?!path)(.+?)(?:\.? Got value|\. |$)", message, re.M)))
        types = [re.sub(r"<class '(.+?)'>|typing\.", r"\1", name) for name in types if "NoneType" not in name]
        if types:
            got = (value[1] or value[2]).strip().strip("'")
            return f"Expected {' or '.join(types)} for {keys[-1]}, but got {got!r}."
    return _shortened(" ".join(message.split()))


def _shortened(text: str) -> str:
    """Return the innermost part of an error about a value of several types, cut to LONGEST characters."""
    key, _, reason = text.rpartition('Parser key "')[2].partition('": ')
    if "Union subtypes" in text and reason:
        value = re.search(r"Given value: (.{1,100}?)(?: - |$)", reason)
        if (types := re.search(r"Subtypes: \[(.+?)\] Errors", reason)) and value:
            names = re.sub(r"<class '(.+?)'>", r"\1", types[1]).replace(", NoneType", "")
            return f"Expected {re.sub(r'[a-z_.]+[.]', '', names)} for {key}, but got {value[1]}."
        text = f"{key}: {reason.partition(' - Expected a <class')[0]}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _required(name: str, message: str, keys: list[str]) -> str:
    """Return a message with the option that sets a required argument of a class."""
    given = rf"((\w+)=|Given value: )?Namespace\(class_path='([\w.]+)', init_args=Namespace\([^()]*?\b{name}=None"
    match = next((candidate for candidate in re.finditer(given, message) if _has_no_default(candidate[3], name)), None)
    if match is None:
        return f"Expected a value for {name}, but got none."
    is_single, key, path = match.groups()
    rest = message[match.end() :].partition("\n")[0]
    option = ".".join([*keys, *([key] if key and key not in keys else []), name])
    # in a list, an option applies to the last item
    how = f"--{option} VALUE" if is_single or ", Namespace(" not in rest else f"`init_args: {{{name}: VALUE}}` to it"
    return f"Expected a value for {name} of {path.rpartition('.')[2]}, but got none. Add {how}."


def _has_no_default(path: str, name: str) -> bool:
    module, _, cls = path.rpartition(".")
    class_ = getattr(sys.modules.get(module), cls, None)
    parameter = inspect.signature(class_).parameters.get(name) if inspect.isclass(class_) else None
    return parameter is None or parameter.default is inspect.Parameter.empty  # None: a base class has it


def _missing_file(file: Path) -> str:
    file = Path(os.path.relpath(file))
    near = get_close_matches(file.name, [other.name for other in file.parent.glob("*")], 1)
    hint = f" Did you mean {file.parent / near[0]}?" if near else ""
    return f"Expected a file, but {file} does not exist.{hint}"


def _yaml_problem(args: list[str]) -> str | None:
    for file in config_files(args):
        try:
            content = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            if content is None:
                return f"Expected `key: value` lines in {file}, but it is empty."
            if not isinstance(content, dict):
                return f"Expected `key: value` lines in {file}, but got {type(content).__name__}."
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            return f"{file}:{line} is not YAML: {error.problem}."
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
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            top = {file.stem for file in Path.cwd().glob("*.py")} | {module.__name__ for module in PROJECT_MODULES}
            near = get_close_matches(module_name, top, 1)
            hint = f" Did you mean {near[0]}.{name}?" if near else " Is its file in the working directory?"
            return f"Expected a class at {path!r}, but there is no module {error.name!r}.{hint}"
        return _import_failed(path, error)
    except Exception as error:  # the user's module may raise any exception
        return _import_failed(path, error)
    if hasattr(module, name):
        return None
    near = get_close_matches(name, dir(module), 1)
    hint = f" Did you mean {module_name}.{near[0]}?" if near else ""
    return f"Expected a class at {path!r}, but {module_name} has no {name!r}.{hint}"


def _import_failed(path: str, error: Exception) -> str:
    """Return a message with the line of the user's module that raised during import."""
    return f"{path} cannot be imported: {type(error).__name__}: {error}{_own_line(error)}."


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback that lie outside installed packages."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(INSTALLED)]


def _own_line(error: BaseException) -> str:
    frames = _own_frames(error)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
