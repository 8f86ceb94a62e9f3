"""Check settings that types cannot check, and derive defaults from other settings, before a run exists."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules import ImageClassifier
from project.cli.monitors import better_mode, is_of_training, is_of_validation
from project.errors import RunError
from project.runs.options import NOT_ZERO

CHECKPOINT = "--checkpoint.mode"
# whether EarlyStopping and ModelCheckpoint read the monitored metric after the training epoch or after a validation
AT_EPOCH_END = ("check_on_train_epoch_end", "save_on_train_epoch_end")


def check_config(command: str, config: Namespace, given: Callable[[], Namespace]) -> None:
    """Check a config, and set options that depend on the monitored metric.

    Args:
        command: fit, validate or test.
        config: All its settings.
        given: Returns the settings of the command line and its configs, without defaults.

    Raises:
        RunError: The run would fail, hang or not train, or a file of weights does not exist.
    """
    trainer, checkpoint = config.trainer, config.checkpoint
    for key in ("trainer", "model", "data", "callbacks"):
        if isinstance(config.get(key), list):
            raise RunError(f"Expected keys and values below `{key}:`, but got a list.")
    if trainer.default_root_dir is not None:
        raise RunError(
            "Expected no --trainer.default_root_dir, because each run has its own directory. Use --runs_dir."
        )
    if checkpoint.dirpath is not None or checkpoint.filename != "best" or checkpoint.save_top_k not in (0, 1):
        raise RunError(
            "Expected the defaults of --checkpoint.dirpath, filename and save_top_k, because --run uses "
            "checkpoints/best.ckpt. To keep more checkpoints, add a ModelCheckpoint to trainer.callbacks."
        )
    if trainer.barebones:
        raise RunError("Expected --trainer.barebones false, because a run needs logs and checkpoints, but got true.")
    is_name = isinstance(trainer.strategy, str)
    strategy = trainer.strategy if is_name else str(config.get("trainer.strategy.init_args.start_method"))
    if re.search("fork|spawn|notebook", strategy):
        instead = re.sub("_(fork|spawn|notebook)", "", strategy) if is_name else "start_method popen"
        raise RunError(
            "Expected a --trainer.strategy that starts this command in each process, but got "
            f"{strategy}, which hangs if a process fails. Use {instead}."
        )
    for option in ("pretrained", "teacher"):  # before data is downloaded
        file = config.get(f"model.init_args.{option}")
        used = config.ckpt_path is None if option == "pretrained" else command == "fit"
        if file is not None and used and not Path(file).is_file():
            raise RunError(f"Expected a file of weights at --model.{option}, but {file} does not exist.")
    _switch_off_unsuited(config, given)
    if command != "fit":
        return
    for name in NOT_ZERO:
        if config[name] == 0:
            raise RunError(f"Expected --{name} other than 0, but got 0.")
    _read_at_epoch_end(config)
    _complete_modes(config, given)


def _switch_off_unsuited(config: Namespace, given: Callable[[], Namespace]) -> None:
    """Switch off callbacks that need a classifier if the module is none, except those that the user has set."""
    module = class_of(config.model)
    if module is None or issubclass(module, ImageClassifier):
        return
    named = vars(config.get("callbacks", Namespace()))
    unsuited = [name for name, entry in named.items() if getattr(class_of(entry), "needs_classifier", False)]
    known = vars(given().get("callbacks", Namespace())) if unsuited else {}
    off = [name for name in unsuited if name not in known]
    for name in off:
        config.callbacks[name] = False
    if off:
        rank_zero_info(f"Off, because {module.__name__} is not an ImageClassifier: {', '.join(off)}.")


def class_of(entry: Any) -> type | None:
    """Return the class of an entry of a config; None if the entry is none or off."""
    if not entry:
        return None
    module, _, name = entry.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _read_at_epoch_end(config: Namespace) -> None:
    """Read monitored training metrics at the end of the epoch: after a validation, they are not logged yet.

    Without a validation, checkpoints are also written then; Lightning's default for them depends on the trainer.
    """
    for _, monitor, settings in _monitoring(config).values():
        for name in AT_EPOCH_END:
            if monitor is not None and is_of_training(monitor) and settings.get(name, False) is None:
                settings[name] = True
    checkpoint, given = config.checkpoint, config.checkpoint.save_on_train_epoch_end
    monitor = str(checkpoint.monitor)
    if is_of_training(monitor) or (given is None and config.trainer.limit_val_batches == 0):
        checkpoint.save_on_train_epoch_end = True
    elif given is None and (checkpoint.monitor is None or is_of_validation(monitor)):
        checkpoint.save_on_train_epoch_end = False


def _complete_modes(config: Namespace, given: Callable[[], Namespace]) -> None:
    """Set the mode of each monitored metric by its name, and reject a mode that contradicts the name."""
    for key, (option, monitor, settings) in _monitoring(config).items():
        if monitor is None or settings.get("mode") not in ("min", "max"):
            continue
        if config.trainer.limit_val_batches == 0 and is_of_validation(monitor):
            if option != CHECKPOINT:
                raise RunError(
                    f"Expected a training metric for {option.removeprefix('mode of ')}, because "
                    f"--trainer.limit_val_batches is 0, but got {monitor}."
                )
            rank_zero_info(
                f"No best.ckpt will be written: --trainer.limit_val_batches is 0, so {monitor} is not logged. To "
                "select it by the training images, set --checkpoint.monitor train/loss."
            )
        better = better_mode(monitor)
        if better == settings.mode:
            continue
        of_user = _monitoring(given()).get(key)  # without defaults
        mode = of_user[2].get("mode") if of_user else settings.mode
        if better is None and mode is None:
            raise RunError(f"Expected {option} min or max, because it does not follow from the name {monitor}.")
        if better is not None and mode is not None:
            raise RunError(f"Expected {option} {better} for {monitor}, but got {mode}, which selects the worst value.")
        settings.mode = better or mode


def _monitoring(config: Namespace) -> dict[str, tuple[str, str | None, Namespace]]:
    """Return (option of the mode, monitored metric, settings) of everything that may monitor a metric, by key."""
    settings = config.get("checkpoint") or Namespace()
    entries = {"checkpoint": (CHECKPOINT, settings.get("monitor"), settings)}
    for key, entry in _callbacks(config).items():
        settings = entry.get("init_args") or Namespace()
        entries[key] = f"mode of {entry.class_path.rpartition('.')[2]}", settings.get("monitor"), settings
    for i, entry in enumerate(_listed(config.get("model.init_args.lr_scheduler"))):
        settings = entry.get("init_args") or Namespace()
        default = "val/loss" if entry.class_path.endswith("ReduceLROnPlateau") else None  # see build_scheduler
        entries[f"lr_scheduler.{i}"] = "--model.lr_scheduler.mode", settings.get("monitor", default), settings
    return entries


def _callbacks(config: Namespace) -> dict[str, Namespace]:
    """Return all callbacks, by name or by index in trainer.callbacks."""
    named = {f"callbacks.{name}": entry for name, entry in vars(config.get("callbacks", Namespace())).items()}
    listed = {f"trainer.callbacks.{i}": entry for i, entry in enumerate(_listed(config.get("trainer.callbacks")))}
    return {key: entry for key, entry in (named | listed).items() if entry}


def _listed(entries: Any) -> list[Namespace]:
    return entries if isinstance(entries, list) else [entries] if entries else []
