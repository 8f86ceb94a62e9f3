"""Error messages for unknown options and config keys, with their location and the closest known option."""

import inspect
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml

import lightning_modules
from project.cli.named_callbacks import default_callbacks
from project.cli.parser import DEFAULT_CLASSES, LINKED
from project.runs.command_line import config_files
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
    "model.network.depth": "depth",
    "model.optimizer": "optim opt",
    "model.optimizer.lr": "lr learning_rate base_lr init_lr",
    "model.optimizer.weight_decay": "weight_decay wd",
    "model.optimizer.momentum": "momentum",
    "model.lr_scheduler": "scheduler sched lr_schedule schedule",
    "model.loss": "criterion loss_fn loss_function",
    "model.compile": "torch_compile",
}
OPTION_OF = {name: option for option, names in OTHER_NAMES.items() for name in names.split()}


def unknown_option(message: str, args: Sequence[str], names: Collection[str]) -> str:
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
    nested = re.findall(r"NestedArg\(key='([\w.]+)'", message)[-1:]  # an option of a class, on the command line
    parent = [part for name in (*outer, *nested) for part in name.split(".")]
    path = parent if parent[-1:] == unknown[-1:] else [*parent, *unknown]
    known = _known_options(names)
    entry = default_callbacks().get(path[1]) if path[0] == "callbacks" and len(path) > 2 else None
    if entry and path[-1] in _parameters(_class_at(entry["class_path"])):
        name = ".".join(path[:2])
        return f"Expected {name} to be on before its arguments, but it is off. Set --{name} true before them."
    places = [] if nested or message.startswith("unrecognized") else _locations(args, parent, unknown, known)
    for line, found in places:
        hint = _hint(found, known, args).replace("mean --", "mean ")
        return f"Expected a known option, but got {'.'.join(unknown)!r} in {line}.{hint}"
    hint = _hint(_plain(path), known, args)
    return f"Expected a known option on the command line, but got {'.'.join(unknown)!r}.{hint}"


def _hint(path: list[str], options: Collection[str], args: Sequence[str]) -> str:
    """Return the closest known option: its full name, or only the misspelled part if the rest is valid."""
    known = [option.split(".") for option in options]
    starts = (i for i in range(len(path)) if not any(name[: i + 1] == path[: i + 1] for name in known))
    start = next(starts, len(path) - 1)  # of the part that is wrong
    siblings = {name[start] for name in known if len(name) > start and name[:start] == path[:start]} - {path[start]}
    last = path[-1].replace("-", "_").lower()
    words = _words(args)
    if start < len(path) - 1 and (near := get_close_matches(path[start], siblings, 1, 0.75)):
        return f" Did you mean {near[0]}?"
    if (option := OPTION_OF.get(last)) and option != ".".join(path):
        return f" Did you mean --{option}?"
    if same := [name for name in known if name[-1] == last and name != path]:
        shortest = min(same, key=len)
        return f" Did you mean --{'.'.join(shortest)}?"
    ends = OPTION_OF | {name[-1]: ".".join(name) for name in reversed(known)}
    longer = [name for name in ends if name.startswith(f"{last}_")]
    full = longer if len(longer) == 1 else get_close_matches(last, ends, 1, 0.8)
    if full and len(path) == 1:
        return f" Did you mean --{ends[full[0]]}?"
    near = get_close_matches(last, siblings if start else (), 1) or get_close_matches(last, words, 1, 0.75)
    if near and last not in words:
        return f" Did you mean {near[0]}?"
    return f" Did you mean --{ends[full[0]]}?" if full else f" `python -m project {args[0]} --help` lists the options."


def _plain(path: Sequence[str]) -> list[str]:
    """Return a path as in options: without list indices, ``class_path`` and ``init_args``."""
    return [part.removesuffix("+") for part in path if part not in ("init_args", "class_path") and not part.isdecimal()]


def _locations(
    args: Sequence[str], parent: list[str], unknown: list[str], known: Collection[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield file and line of an unknown key, and its path, from the last config to the first."""
    for file in reversed(config_files(args)):
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"), Loader)
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        for keys, line in key_lines(node):
            plain, ends = _plain(keys), list(keys[-len(unknown) :]) == unknown
            here = plain[: len(parent)] == parent if parent else len(keys) == len(unknown)
            if here and ends and ".".join(plain) not in known:
                yield f"{file}:{line}", plain


def _known_options(names: Collection[str]) -> set[str]:
    """Return all options of a parser, with those of the default classes and of ``OTHER_NAMES``."""
    options = {name.removesuffix("+") for name in names if not name.endswith(".help")}
    for key in DEFAULT_CLASSES.keys() & options:
        options |= {f"{key}.{name}" for name in _parameters(DEFAULT_CLASSES[key])}
        options |= {option for option in OTHER_NAMES if option.startswith(f"{key}.")}
    return options


def _class_at(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return value if inspect.isclass(value) else None


def _parameters(cls: type | None) -> list[str]:
    """Return the names of the arguments of a class and its bases."""
    names = [name for base in (cls.__mro__[:-1] if cls else ()) for name in inspect.signature(base).parameters]
    return [name for name in names if name not in ("args", "kwargs", "width", *LINKED)]


def _words(args: Sequence[str]) -> set[str]:
    """Return the names of the arguments of all classes that a command line and its configs name."""
    text = " ".join([*args, *(file.read_text(errors="replace") for file in config_files(args))])
    paths = {*re.findall(CLASS_PATH, text), *(entry["class_path"] for entry in default_callbacks().values())}
    rules = (lightning_modules.ParamGroup, lightning_modules.Initializer)
    return {name for cls in [*rules, *map(_class_at, paths)] for name in _parameters(cls)}
