"""Shorten errors of jsonargparse, torch and the operating system to messages for the user."""

import importlib
import os
import re
import site
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path

import yaml

import callbacks
import datamodules
import lightning_modules
import lightning_modules.networks
from project.cli.unknown_options import UNKNOWN_KEY, unknown_option
from project.errors import did_you_mean, shortened
from project.runs.command_line import config_files
from project.runs.config import read_yaml

INSTALLED = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *site.getsitepackages(), "<frozen"})
PROJECT_MODULES = (callbacks, datamodules, lightning_modules, lightning_modules.networks)
CLASS_ERROR = r"class_path '(\S+?)'|a dot import path string: (\S+)|module '([\w.]+)' has no attribute '(\w+)'"
WRONG_TYPE = (  # type and value
    r"Not of type (\w+): (\S+) does not",
    r"Not of type (\w+): (?:invalid|could not) [^\n]*: '?([^'\n]+)",
    r"Expected an? ([^\n]+?)\. Got value: ([^\n]+)",
    r"Subtypes: \[([^\n]+)\].*?Given value: (?:NestedArg\(.*val=)?([^\n]+?)\)?(?:\n|$)",
)


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


def short_traceback(error: BaseException) -> str:
    """Return the frames of a traceback outside installed packages, and the error."""
    frames = "".join(traceback.format_list(_own_frames(error)))
    reason = "".join(traceback.format_exception_only(error)).strip()
    return f"{frames}error: {reason}\nFrames of installed packages are hidden. To show them, set PROJECT_DEBUG=1."


def parser_message(message: str, args: list[str]) -> str:
    """Return an error message of jsonargparse about a command line in one line, with the closest valid name."""
    if match := re.search(r"Expected each key once.*", message):  # in a file that a config names
        return match[0]
    if re.search(UNKNOWN_KEY, message):
        return unknown_option(message, args)
    if re.search(r"arguments are required: \w+\.(data|model)", message):
        if args[0] == "fit":
            return (
                "Expected a recipe, but got no model or data. Put --config configs/resnet.yaml, or another recipe, "
                "before all overlays."
            )
        return f"Expected weights to {args[0]}. Set --run last, best or DIRECTORY, or --config FILE --ckpt_path FILE."
    if match := re.search(CLASS_ERROR, message):
        path = match[1] or match[2] or f"{match[3]}.{match[4]}"
        if problem := _class_problem(path):
            return problem
    if match := re.search(r"File does not exist: '(.+?)'", message):
        file = Path(os.path.relpath(match[1]))
        hint = did_you_mean(file.name, [other.name for other in file.parent.glob("*")], f"{file.parent}/{{}}")
        return f"Expected a file, but {file} does not exist.{hint}"
    if re.search("Problems parsing config|Unexpected config", message) and (problem := _yaml_problem(args)):
        return problem
    keys = re.findall(r'Parser key "(.+?)":', message)  # from the outermost to the innermost
    if match := re.search(r"arguments are required: ([\w.]+)", message):
        owner = f" in {'.'.join(keys)}" if keys else ""
        return f"Expected a value for {match[1]}{owner}, but got none."
    inner = message.rpartition('Parser key "')[2]
    for pattern in WRONG_TYPE:
        if keys and (match := re.search(pattern, inner, re.DOTALL)):
            kind = re.sub(r"<class '(.+?)'>", r"\1", match[1]).replace(", NoneType", "")
            value = match[2].strip("'")
            return f"Expected {re.sub(r'[a-z_]+[.]', '', kind)} for {keys[-1]}, but got {value}."
    return shortened(ValueError(message))


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
