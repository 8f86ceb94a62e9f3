"""Errors, written for the person who made the mistake."""

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
OURS = (callbacks, datamodules, lightning_modules, lightning_modules.networks)
LONGEST = 300  # characters of a message of jsonargparse's


def root_cause(error: BaseException) -> BaseException:
    """Return the error that jsonargparse wrapped because a type was "this class or None"."""
    while isinstance(error, ValueError) and "Does not validate" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """Return the message of an error of ours or of the operating system, with the line that met the latter."""
    message = str(error)
    if message.startswith(
        "Caught "
    ):  # what torch makes of an error in a DataLoader's worker: a page, and the reason last
        return message.strip().splitlines()[-1].partition(": ")[2]
    place = _own_line(error) if isinstance(error, OSError) else ""
    return f"{message}{place}"


def is_of_another_network(error: BaseException) -> bool:
    """Tell whether a checkpoint did not fit the network."""
    return isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in str(error)


def callback_hook(error: BaseException) -> str | None:
    """Return which hook of which callback an error came from, as "GradientNorm.on_train_start"."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, Callback) and hasattr(Callback, frame.f_code.co_name):
            return f"{type(owner).__name__}.{frame.f_code.co_name}"
    return None


def short_traceback(error: BaseException) -> str:
    """Return the frames of an error that lie outside installed packages, and the error itself."""
    lines = traceback.format_list(_own_frames(error))
    reason = "".join(traceback.format_exception_only(error)).strip()
    hook = callback_hook(error)
    error_line = f"error: {f'in callback {hook}: ' if hook else ''}{reason}"
    return f"{''.join(lines)}{error_line}\nOnly your files and the project's are shown; PROJECT_DEBUG=1 shows all."


def parser_message(message: str, args: list[str], options: Collection[str] = ()) -> str:
    """Return jsonargparse's complaint about a command line in one line, with the nearest right name.

    Args:
        message: The complaint.
        args: Command line that it is about.
        options: Names of all options, without those of classes.
    """
    if found := re.search(r"Expected each (?:key|--config) once.*", message):
        return found[0]
    if re.search(UNKNOWN_KEY, message):
        return unknown_option(message, args, options)
    if re.search(r"arguments are required: \w+\.(data|model)", message):
        if args[0] == "fit":
            if config_files(args):
                return (
                    "Expected a recipe, but got no model or data: put the --config of a recipe, such as "
                    "configs/resnet.yaml, before that of an overlay."
                )
            return "Expected a recipe, but got no model and data: add --config configs/resnet.yaml."
        return f"Expected what to {args[0]}: give --run last, best or FOLDER, or --config FILE and --ckpt_path FILE."
    if found := re.search(r"Expected a path but (\S+) either not accessible|class_path '(\S+?)'", message):
        path = next(filter(None, found.groups()))
        if re.fullmatch(r"[\w.]*\.\w+|[A-Z]\w*", path) and (problem := _class_problem(path)):
            return problem
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):  # within another class's arguments
        return _class_problem(f"{found[1]}.{found[2]}") or " ".join(message.split())
    if found := re.search(r"File does not exist: '(.+?)'", message):
        return _missing_file(Path(found[1]))
    if re.search("Problems parsing config|Unexpected config", message) and (problem := _yaml_problem(args)):
        return problem
    if found := re.search(r'Parser key "([\w.]+)":\s+Not of type \w+: (\S+) does not .* restriction v(.+)', message):
        return f"Expected {found[1]} {found[3]}, but got {found[2]}."
    if found := re.search(
        r'"(\w+)":(?:(?!Parser key)[\s\S])*does not conform to restriction v(\S+)[\s\S]*?Given value: (\S+)', message
    ):
        return f"Expected {found[1]} {found[2]}, but got {found[3]}."
    if found := re.search(r"Import path (\S+) does not implement protocol BatchTransform", message):
        return (
            f"Expected a transform of whole batches, as datamodules.RandomCrop, but got {found[1]}: transforms of "
            "single images belong below train_transforms."
        )
    keys = re.findall(r'Parser key "(.+?)":', message)  # from the outermost to the innermost
    if found := re.search(r"arguments are required: ([\w.]+)", message):
        return _required(found[1], message, keys)
    value = re.search(r"NestedArg\(.*val=(.*)\)|(?:Given value|Got value): (.*)", message)
    if keys and value:
        wanted = list(dict.fromkeys(re.findall(r"Expected an? (?!path)(.+?)(?:\.? Got value|\. |$)", message, re.M)))
        wanted = [re.sub(r"<class '(.+?)'>|typing\.", r"\1", want) for want in wanted if "NoneType" not in want]
        if wanted:
            got = (value[1] or value[2]).strip().strip("'")
            return f"Expected {' or '.join(wanted)} for {keys[-1]}, but got {got!r}."
    return _shortest(" ".join(message.split()))


def _shortest(text: str) -> str:
    """Return a complaint about a value of several types in its innermost part, cut to a length that is read."""
    key, _, reason = text.rpartition('Parser key "')[2].partition('": ')
    if "Union subtypes" in text and reason:
        value = re.search(r"Given value: (.{1,100}?)(?: - |$)", reason)
        if (types := re.search(r"Subtypes: \[(.+?)\] Errors", reason)) and value:
            names = re.sub(r"<class '(.+?)'>", r"\1", types[1]).replace(", NoneType", "")
            return f"Expected {re.sub(r'[a-z_.]+[.]', '', names)} for {key}, but got {value[1]}."
        text = f"{key}: {reason.partition(' - Expected a <class')[0]}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _required(name: str, message: str, keys: list[str]) -> str:
    """Name the option that gives a class what it was not given."""
    given = rf"((\w+)=|Given value: )?Namespace\(class_path='([\w.]+)', init_args=Namespace\([^()]*?\b{name}=None"
    found = next((one for one in re.finditer(given, message) if _has_no_default(one[3], name)), None)
    if found is None:
        return f"Expected a value for {name}, but got none."
    alone, key, path = found.groups()
    behind = message[found.end() :].partition("\n")[0]
    option = ".".join([*keys, *([key] if key and key not in keys else []), name])
    # in a list, an option is for the last
    how = f"--{option} VALUE" if alone or ", Namespace(" not in behind else f"`init_args: {{{name}: VALUE}}` to it"
    return f"Expected a value for {name} of {path.rpartition('.')[2]}, but got none: add {how}."


def _has_no_default(path: str, name: str) -> bool:
    module, _, cls = path.rpartition(".")
    found = getattr(sys.modules.get(module), cls, None)
    parameter = inspect.signature(found).parameters.get(name) if inspect.isclass(found) else None
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
    """Return why a class cannot be had by its path, or None if it can."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        known = {name: f"{module.__name__}.{name}" for module in OURS for name in module.__all__}
        near = get_close_matches(name, known, 1)
        hint = f" Did you mean {known[near[0]]}?" if near else ""
        return f"Expected the path of a class, as callbacks.ConfusionMatrix, but got {path!r}.{hint}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            top = {file.stem for file in Path.cwd().glob("*.py")} | {module.__name__ for module in OURS}
            near = get_close_matches(module_name, top, 1)
            hint = f" Did you mean {near[0]}.{name}?" if near else " Is its file in the folder you started from?"
            return f"Expected a class at {path!r}, but there is no module {error.name!r}.{hint}"
        return _import_failed(path, error)
    except Exception as error:  # whatever the user's module raises
        return _import_failed(path, error)
    if hasattr(module, name):
        return None
    near = get_close_matches(name, dir(module), 1)
    hint = f" Did you mean {module_name}.{near[0]}?" if near else ""
    return f"Expected a class at {path!r}, but {module_name} has no {name!r}.{hint}"


def _import_failed(path: str, error: Exception) -> str:
    """Name the user's line that raised while the module of a class was imported."""
    return f"{path} cannot be imported: {type(error).__name__}: {error}{_own_line(error)}."


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback that lie outside installed packages."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(INSTALLED)]


def _own_line(error: BaseException) -> str:
    frames = _own_frames(error)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames and frames[-1].filename != __file__ else ""
