"""Check settings that types cannot check, and derive defaults from other settings, before a run exists."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from jsonargparse import Namespace

from project.cli.monitors import better_mode, is_of_training, is_of_validation
from project.errors import RunError
from project.runs.config import CONFIG
from project.runs.folders import check_data_folder
from project.runs.options import NOT_ZERO

UNSUITABLE = {  # callbacks of Lightning, and what to use instead
    "LearningRateFinder": "`python -m project find-lr`, which respects the learning rate of each param group",
    "BatchSizeFinder": "--data.batch_size, which config.yaml records",
    "OnExceptionCheckpoint": "`fit --run last`, which resumes from last.ckpt",
}


def check_config(command: str, config: Namespace, given: Callable[[], Namespace]) -> None:
    """Check a config, and set options that depend on the monitored metric.

    Args:
        command: fit, validate or test.
        config: All its settings.
        given: Returns the settings of the command line and its configs, without defaults.

    Raises:
        RunError: The run would fail, hang or not train, or the teacher or the data of a run does not exist.
    """
    for message in _mistakes(command, config):
        raise RunError(message)
    check_data(config)
    if command == "fit":
        _set_time_of_checkpoint(config)
        _complete_modes(config, given)


def check_data(config: Namespace) -> None:
    """Check that the data of runs whose configs are given exists; see ``check_data_folder``."""
    for path in config.get("config") or []:
        if path is not None and Path(str(path)).name == CONFIG:  # of a run
            check_data_folder(Path(str(path)).parent, config.data.get("init_args") or {})


def _mistakes(command: str, config: Namespace) -> Iterator[str]:
    """Yield a message for each setting with which the command would fail, hang or not train."""
    for key in ("trainer", "model", "data", "callbacks"):
        if isinstance(config.get(key), list):
            yield f"Expected keys and values below `{key}:`, but got a list."
    trainer, checkpoint = config.trainer, config.checkpoint
    if trainer.default_root_dir is not None:
        yield "Expected no --trainer.default_root_dir, because each run has its own directory. Use --runs_dir."
    if checkpoint.dirpath is not None or checkpoint.filename != "best" or checkpoint.save_top_k not in (0, 1):
        yield (
            "Expected the defaults of --checkpoint.dirpath, filename and save_top_k, because --run uses "
            "checkpoints/best.ckpt. To keep more checkpoints, add a ModelCheckpoint to trainer.callbacks."
        )
    if trainer.barebones:
        yield "Expected --trainer.barebones false, because a run needs logs and checkpoints, but got true."
    listed = config.trainer.callbacks if isinstance(config.trainer.callbacks, list) else [config.trainer.callbacks]
    for entry in (*vars(config.get("callbacks", Namespace())).values(), *listed):
        if entry and (name := entry.class_path.rpartition(".")[2]) in UNSUITABLE:
            yield f"Expected no {name}, but {UNSUITABLE[name]}."
    is_name = isinstance(trainer.strategy, str)
    strategy = trainer.strategy if is_name else str(config.get("trainer.strategy.init_args.start_method"))
    if re.search("fork|spawn|notebook", strategy):  # a process that fails would leave the others waiting
        yield f"Expected a --trainer.strategy such as ddp, which starts new processes, but got {strategy}."
    teacher = config.get("model.init_args.teacher")
    if teacher is not None and command == "fit" and not Path(teacher).is_file():  # before data is downloaded
        yield f"Expected a file of weights at --model.teacher, but {teacher} does not exist."
    for name in NOT_ZERO if command == "fit" else ():
        if config[name] == 0:
            yield f"Expected --{name} other than 0, but got 0."


def _set_time_of_checkpoint(config: Namespace) -> None:
    """Read monitored metrics when they are new: after a validation, or at the end of an epoch for those of training.

    For other metrics, Lightning's default applies. Without validation, checkpoints are written at the end of an epoch.
    """
    for _, monitor, settings in _monitors(config).values():
        for name in ("check_on_train_epoch_end", "save_on_train_epoch_end"):
            if monitor is not None and is_of_training(monitor) and settings.get(name, False) is None:
                settings[name] = True
    checkpoint, monitor = config.checkpoint, str(config.checkpoint.monitor)
    if checkpoint.save_on_train_epoch_end is None:
        if config.trainer.limit_val_batches == 0:
            checkpoint.save_on_train_epoch_end = True
        elif checkpoint.monitor is None or is_of_validation(monitor):
            checkpoint.save_on_train_epoch_end = False


def _complete_modes(config: Namespace, given: Callable[[], Namespace]) -> None:
    """Set the mode of each monitored metric by its name, and reject a mode that contradicts the name."""
    for key, (option, monitor, settings) in _monitors(config).items():
        if monitor is None or settings.get("mode") not in ("min", "max"):
            continue
        if config.trainer.limit_val_batches == 0 and is_of_validation(monitor) and key != "checkpoint":
            raise RunError(
                f"Expected a training metric at {key}, because --trainer.limit_val_batches is 0, but got {monitor}."
            )
        better = better_mode(monitor)
        if better == settings.mode:
            continue
        of_user = _monitors(given()).get(key)  # without defaults
        mode = of_user[2].get("mode") if of_user else settings.mode
        if better is None and mode is None:
            raise RunError(f"Expected {option} min or max, because it does not follow from the name {monitor}.")
        if better is not None and mode is not None:
            raise RunError(f"Expected {option} {better} for {monitor}, but got {mode}, which selects the worst value.")
        settings.mode = better or mode


def _monitors(config: Namespace) -> dict[str, tuple[str, str | None, Namespace]]:
    """Return (name of the mode, monitored metric, settings) of everything that may monitor a metric, by key."""
    checkpoint = config.get("checkpoint") or Namespace()
    monitors = {"checkpoint": ("--checkpoint.mode", checkpoint.get("monitor"), checkpoint)}
    entries = {f"callbacks.{name}": entry for name, entry in vars(config.get("callbacks", Namespace())).items()}
    for key in ("trainer.callbacks", "model.init_args.lr_scheduler"):
        value = config.get(key)
        entries |= {f"{key}.{i}": entry for i, entry in enumerate(value if isinstance(value, list) else [value])}
    for key, entry in entries.items():
        if entry:
            name, settings = entry.class_path.rpartition(".")[2], entry.get("init_args") or Namespace()
            default = "val/loss" if name == "ReduceLROnPlateau" else None  # see build_scheduler
            monitors[key] = f"mode of {name}", settings.get("monitor", default), settings
    return monitors
