"""Error messages for unknown options and config keys, with their location and the closest known option."""

import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

import lightning_modules
from project.cli.named_callbacks import DEFAULTS
from project.cli.parser import DEFAULT_CLASSES, LINKED
from project.runs.command_line import config_files, is_class, option_of, split_options
from project.runs.config import Loader, key_lines

UNKNOWN_KEY = r"Option '(.+?)' is not accepted|does not accept option '(.+?)'|unrecognized arguments: (\S+)"
CLASS_PATH = r"[A-Za-z_]\w*(?:\.\w+)*\.[A-Za-z_]\w*"
OTHER_NAMES = {  # names that other projects use for an option
    "seed_everything": "seed random_seed random_state",
    "runs_dir": "name run_name exp_name experiment output output_dir out_dir save_dir log_dir logdir work_dir workdir",
    "run": "resume resume_from resume_from_checkpoint restore continue",
    "ckpt_path": "checkpoint_path ckpt weights model_path load_from",
    "trainer.max_epochs": "epochs num_epochs n_epochs nb_epochs num_train_epochs",
    "trainer.max_steps": "steps num_steps iterations max_iter",
    "trainer.devices": "gpus gpu num_gpus n_gpu n_gpus ngpus gpu_ids num_devices world_size nproc_per_node",
    "trainer.accelerator": "device cpu cuda use_cuda",
    "trainer.precision": "amp fp16 bf16 half mixed_precision",
    "trainer.gradient_clip_val": "clip grad_clip gradient_clip clip_grad max_grad_norm clip_grad_norm",
    "trainer.accumulate_grad_batches": "accumulate accumulation_steps gradient_accumulation_steps accum_iter",
    "data": "dataset datamodule",
    "data.root": "data_dir data_root data_path datadir dataset_dir dataset_path root_dir dir path",
    "data.batch_size": "bs batch train_batch_size per_device_train_batch_size",
    "data.num_workers": "workers num_worker n_workers dataloader_num_workers",
    "data.image_size": "img_size imgsz resolution input_size",
    "data.batch_transforms": "augment augmentation augmentations transforms transform",
    "model.network": "arch architecture net backbone model_name",
    "model.optimizer": "optim opt",
    "model.optimizer.lr": "learning_rate base_lr init_lr",
    "model.optimizer.weight_decay": "wd",
    "model.lr_scheduler": "scheduler sched lr_schedule schedule",
    "model.loss": "criterion loss_fn loss_function",
    "model.compile": "torch_compile",
}
OPTION_OF = {name: option for option, names in OTHER_NAMES.items() for name in names.split()}


def unknown_option(message: str, args: list[str], names: Collection[str]) -> str:
    """Return jsonargparse's error about an unknown option in one line, with its location and the closest known option.

    Args:
        message: The error; it matches ``UNKNOWN_KEY``.
        args: Command line.
        names: Options of the command's parser, except those of classes.
    """
    match = re.search(UNKNOWN_KEY, message)
    assert match is not None
    key = next(filter(None, match.groups()))
    if Path(key).suffix in (".yaml", ".yml"):
        return f"Expected --config before a config file, but got {key}: --config {key}."
    unknown = key.lstrip("-").partition("=")[0].split(".")
    if "init_args" in unknown:  # jsonargparse knows the keys of a class only once it knows the class
        return (
            f"Expected the class before its arguments, but got {'.'.join(unknown)!r}. Put the --config of a recipe, "
            "such as configs/resnet.yaml, before that of an overlay."
        )
    outer = re.findall(r'Parser key "(.+?)":', message)[:1]
    inner = re.findall(r"NestedArg\(key='([\w.]+)'", message)[-1:]  # an option of a class
    parent = [part for name in (*outer, *inner) for part in name.split(".")]
    path = _plain(parent if parent[-1:] == unknown[-1:] else [*parent, *unknown]) or unknown
    options = _options(args, names)
    if path[0] == "callbacks" and ".".join(path) in options:
        name = ".".join(path[:2])
        return f"Expected {name} to be on before its arguments, but it is off. Set --{name} true before them."
    if not inner and not message.startswith("unrecognized"):
        for location, path in _locations(args, parent, unknown, options):
            hint = _hint(path, options, args).replace("mean --", "mean ")
            return f"Expected a known option, but got {'.'.join(unknown)!r} in {location}.{hint}"
    hint = _hint(path, options, args)
    return f"Expected a known option on the command line, but got {'.'.join(unknown)!r}.{hint}"


def _hint(path: Sequence[str], options: Sequence[str], args: Sequence[str]) -> str:
    """Return a hint with the closest option: its full name, or only the misspelled part if the rest is valid."""
    known = [option.split(".") for option in options]
    start = next((i for i in range(len(path)) if not any(name[: i + 1] == path[: i + 1] for name in known)), -1)
    wrong, rest = path[start].replace("-", "_").lower(), path[start:][1:]
    siblings = {name[start] for name in known if len(name) > start and name[:start] == path[:start]}
    near = get_close_matches(wrong, siblings, 1, 0.6 if start and not rest else 0.75)
    other = ".".join([OPTION_OF.get(wrong, ""), *rest])
    same = max(known, key=lambda name: (_common_end(name, [wrong, *rest]), -len(name)), default=[])
    if not (near and rest):
        if other in options:
            return f" Did you mean --{other}?"
        if _common_end(same, [wrong, *rest]):
            return f" Did you mean --{'.'.join(same)}?"
    near = near or get_close_matches(wrong, () if siblings else _words(args), 1)
    parent = ".".join(path[:start])
    if not siblings and parent in ("model.network", "model.loss", "model.optimizer", "model.lr_scheduler"):
        return f" Set a class before its arguments: --{parent} CLASS."
    if near:
        return f" Did you mean {near[0]}?"
    longer = [name for name in known if name[-1].startswith(f"{wrong}_")]
    if len(longer) == 1:
        return f" Did you mean --{'.'.join(longer[0])}?"
    ends = OPTION_OF | {name[-1]: ".".join(name) for name in reversed(known)}
    # deeper, the argument may belong to another class
    if start < 2 and (near := get_close_matches(wrong, ends, 1, 0.8)):
        return f" Did you mean --{ends[near[0]]}?"
    return f" `python -m project {args[0]} --help` lists the options."


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many trailing components two names have in common."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _plain(path: Iterable[str]) -> list[str]:
    """Return a path as in options: without list indices, ``class_path`` and ``init_args``."""
    return [part.removesuffix("+") for part in path if part not in ("init_args", "class_path") and not part.isdecimal()]


def _locations(
    args: Sequence[str], parent: list[str], unknown: list[str], options: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield file and line of an unknown key, and its path, from the last config to the first."""
    for file in reversed(config_files(args)):
        for keys, line in key_lines(_node(file)):
            plain, ends = _plain(keys), list(keys[-len(unknown) :]) == unknown
            here = plain[: len(parent)] == parent if parent else len(keys) == len(unknown)
            if here and ends and ".".join(plain) not in options:
                yield f"{file}:{line}", plain


def _node(file: Path) -> Any:
    try:
        return yaml.compose(file.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _options(args: Sequence[str], names: Collection[str]) -> list[str]:
    """Return all options, including those of the classes in a command line, except classes in lists."""
    options = dict.fromkeys(name.removesuffix("+") for name in names if not name.endswith(".help"))
    for place, cls in (_classes(args) if "model" in options or "data" in options else {}).items():
        # the module sets the first argument of networks, optimizers and schedules
        skipped = 1 if place.count(".") == 1 and place != "model.loss" else 0
        options |= dict.fromkeys(f"{place}.{name}" for name in _parameters(cls, skipped))
    return list(options)


def _classes(args: Sequence[str]) -> dict[str, type]:
    """Return the class at each key of the configs and options of a command line, except classes in lists."""
    paths: dict[str, str] = {}
    for file in [*([DEFAULTS] if DEFAULTS.is_file() else []), *config_files(args)]:
        paths |= _class_paths(_node(file))
    for name, value in map(option_of, split_options(args)):
        if value is not None and is_class(value):
            paths[".".join(_plain(name.split(".")))] = value
    classes = DEFAULT_CLASSES | {place: _class_at(path) for place, path in paths.items()}
    return {place: cls for place, cls in classes.items() if cls is not None}


def _class_paths(node: Any, place: tuple[str, ...] = ()) -> dict[str, str]:
    if isinstance(node, yaml.ScalarNode):  # a callback that is off keeps its class
        return {} if node.value in ("true", "false") else {".".join(_plain(place)): node.value}
    paths: dict[str, str] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            paths |= _class_paths(value, (*place, key.value))
    return paths


def _class_at(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return value if inspect.isclass(value) else None


def _parameters(cls: type, skipped: int = 0) -> list[str]:
    """Return the names of the arguments of a class and its bases."""
    names = [list(inspect.signature(base).parameters)[skipped:] for base in cls.__mro__[:-1]]
    return [name for base in names for name in base if name not in ("args", "kwargs", "width", *LINKED)]


def _words(args: Sequence[str]) -> set[str]:
    """Return the names of the arguments of all classes in a command line, including classes in lists."""
    text = " ".join([*args, *(file.read_text() for file in config_files(args))])
    rules = (lightning_modules.ParamGroup, lightning_modules.Initializer)
    classes = [*rules, *filter(None, map(_class_at, set(re.findall(CLASS_PATH, text))))]
    return {name for cls in classes for name in _parameters(cls)}
