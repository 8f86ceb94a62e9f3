"""Error messages for unknown options and config keys, with their location and the closest known option."""

import inspect
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

from project.cli.named_callbacks import default_callbacks
from project.cli.parser import DEFAULT_CLASSES, LINKED
from project.resume.checkpoint import Checkpoint
from project.runs.command_line import config_files
from project.runs.config import Loader, key_lines

UNKNOWN_KEY = r"Option '(.+?)' is not accepted|does not accept option '(.+?)'|unrecognized arguments: (\S+)"
CLASS_PATH = r"[A-Za-z_]\w*(?:\.\w+)*\.[A-Za-z_]\w*"
CLASSES = {**DEFAULT_CLASSES, "trainer": Trainer, "checkpoint": Checkpoint}  # of the options of each group
HIDDEN = ("args", "kwargs", "width", *LINKED)  # arguments that are no options
OTHER_NAMES = {  # names that other projects use for an option
    "seed_everything": "seed random_seed random_state",
    "name": "run_name exp_name experiment",
    "runs_dir": "output output_dir out_dir save_dir log_dir logdir work_dir workdir",
    "run": "resume resume_from resume_from_checkpoint restore continue",
    "ckpt_path": "checkpoint_path ckpt weights model_path load_from",
    "trainer.max_epochs": "epochs num_epochs n_epochs nb_epochs num_train_epochs",
    "trainer.max_steps": "steps num_steps iterations max_iter",
    "trainer.devices": "gpus gpu num_gpus n_gpu n_gpus ngpus gpu_ids num_devices world_size nproc_per_node",
    "trainer.accelerator": "device cpu cuda use_cuda",
    "trainer.log_every_n_steps": "log_every log_interval print_freq",
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


def unknown_option(message: str, args: Sequence[str]) -> str:
    """Return jsonargparse's error about an unknown option in one line, with its location and the closest known option.

    The error, ``message``, matches ``UNKNOWN_KEY``.
    """
    key = next(filter(None, re.findall(UNKNOWN_KEY, message)[0]))
    if Path(key).suffix in (".yaml", ".yml"):
        return f"Expected --config before a config file, but got {key}: --config {key}."
    key = key.lstrip("-").partition("=")[0]
    nested = re.findall(r"NestedArg\(key='([\w.]+)'", message)  # an option of a class, on the command line
    outer = re.findall(r'Parser key "(.+?)":', message)  # from the outermost to the innermost
    option = f"{outer[0]}.{nested[-1]}" if nested else ".".join([*outer, key])
    if not option.endswith(key):  # a key within the value of the option
        option = f"{option}.{key}"
    path = [part for part in option.split(".") if part != "class_path"]
    line = None if nested or message.startswith("unrecognized") else _location(args, path[0], key)
    hint = _hint(path, args, is_of_class=bool(outer)) or f" `python -m project {args[0]} --help` lists the options."
    if line is not None:
        return f"Expected a known option, but got {'.'.join(path)!r} in {line}.{hint.replace('mean --', 'mean ')}"
    return f"Expected a known option on the command line, but got {'.'.join(path)!r}.{hint}"


def _location(args: Sequence[str], group: str, key: str) -> str | None:
    """Return file and line of an unknown key in the last config that has it."""
    known = _options()
    for file in reversed(config_files(args)):
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"), Loader)
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        for keys, line in key_lines(node):
            plain = ".".join(part for part in keys if part not in ("init_args", "class_path") and not part.isdecimal())
            if f".{'.'.join(keys)}".endswith(f".{key}") and plain.startswith(group) and plain not in known:
                return f"{file}:{line}"
    return None


def _hint(path: Sequence[str], args: Sequence[str], is_of_class: bool) -> str:
    """Return what to use instead of an unknown option; "" if nothing is similar."""
    last, callbacks = path[-1].replace("-", "_").lower(), default_callbacks()
    if "init_args" in path:  # the class is not known yet
        return " Put the --config of a recipe, such as configs/resnet.yaml, before that of an overlay."
    if path[0] == "callbacks" and len(path) > 1:
        if path[1] not in callbacks:
            near = get_close_matches(path[1], callbacks, 1)
            return f" Did you mean --callbacks.{near[0]}?" if near else ""
        if last in _arguments(callbacks[path[1]]["class_path"]):
            return f" This callback is off. Set --callbacks.{path[1]} true before its arguments."
    if is_of_class:
        text = " ".join([*args, *(file.read_text(errors="replace") for file in config_files(args))])
        paths = {*re.findall(CLASS_PATH, text), *(entry["class_path"] for entry in callbacks.values())}
        paths |= {"lightning_modules.ParamGroup", "lightning_modules.Initializer"}
        words = {name for each in paths for name in _arguments(each)}
        if last not in words and (near := get_close_matches(last, words, 1, 0.75)):
            return f" Did you mean {near[0]}?"
    option, owner = (f"--{'.'.join(parts)}" for parts in (path, path[:-1]))
    names = [arg.partition("=")[0] for arg in args]
    if option in names and owner in names[names.index(option) :]:
        return f" Put {owner} before its arguments."
    options = {option.rpartition(".")[2]: option for option in _options()} | OPTION_OF
    near = [last] if last in options else get_close_matches(last, options, 1, 0.8)
    return f" Did you mean --{options[near[0]]}?" if near and options[near[0]] != ".".join(path) else ""


def _options() -> list[str]:
    """Return the options of the classes in ``CLASSES`` and of the table ``OTHER_NAMES``."""
    return [f"{group}.{name}" for group, cls in CLASSES.items() for name in _parameters(cls)] + [*OTHER_NAMES]


def _arguments(class_path: str) -> list[str]:
    """Return the names of the arguments of a class that is imported; [] for anything else."""
    module, _, name = class_path.rpartition(".")
    value = getattr(sys.modules.get(module), name, None)
    return _parameters(value) if inspect.isclass(value) else []


def _parameters(cls: type) -> list[str]:
    """Return the names of the arguments of a class and its bases."""
    return [name for base in cls.__mro__[:-1] for name in inspect.signature(base).parameters if name not in HIDDEN]
