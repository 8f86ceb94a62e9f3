"""Check settings that types cannot check, and derive defaults from other settings, before a run exists."""

import importlib
import re
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, OnExceptionCheckpoint
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules import ImageClassifier
from project.cli.monitors import better_mode, is_of_training, is_of_validation
from project.errors import RunError
from project.runs.options import NOT_ZERO

MAX_SEED = 2**32 - 1  # NumPy's
CHECKPOINT = "--checkpoint.mode"
# whether EarlyStopping and ModelCheckpoint read the monitored metric after the training epoch or after a validation
AT_EPOCH_END = ("check_on_train_epoch_end", "save_on_train_epoch_end")
REJECTED = {
    LearningRateFinder: "it sets one learning rate for all param groups. Set --model.optimizer.lr",
    BatchSizeFinder: "it trains before the run starts. Set --data.batch_size",
    OnExceptionCheckpoint: "a new run would start from its checkpoint. To resume after a failure, use `fit --run last`",
}


def check_config(command: str, config: Namespace, given: Callable[[], Namespace]) -> None:
    """Check a config, and set options that depend on the monitored metric.

    Args:
        command: fit, validate or test.
        config: All its settings.
        given: Returns the settings of the command line and its configs, without defaults.

    Raises:
        RunError: The run would fail, hang or not train.
    """
    trainer = config.trainer
    check_seed_range(config.seed_everything)
    if trainer.barebones:
        raise RunError(
            "Expected --trainer.barebones false, because a run needs logs and checkpoints, but got true. To measure "
            "their overhead, run scripts/benchmark_step.py."
        )
    _check_strategy(trainer.strategy)
    _switch_off_unsuited(config, given)
    if command == "fit":
        for name in NOT_ZERO:
            if config[name] == 0:
                raise RunError(f"Expected --{name} other than 0, but got 0.")
        _check_callbacks(config)
        _check_plateau_interval(config)
        _read_at_epoch_end(config)
        _complete_modes(config, given)


def check_seed_range(seed: int | bool) -> None:
    """Raise RunError if a seed is outside the range that NumPy accepts."""
    if not 0 <= seed <= MAX_SEED:
        raise RunError(f"Expected --seed_everything from 0 to {MAX_SEED}, but got {seed}.")


def _check_strategy(strategy: Any) -> None:
    """Reject strategies that fork or spawn: their processes lack threads, or hang when one of them fails."""
    if isinstance(strategy, str):
        known = StrategyRegistry[strategy]["init_params"] if strategy in StrategyRegistry else {}
        name, instead = strategy, re.sub("_(fork|spawn|notebook)", "", strategy)
    else:
        known = strategy.get("init_args") or {}
        name, instead = f"start_method {known.get('start_method')}", "start_method popen"
    if (known.get("start_method") or "popen") != "popen":
        raise RunError(
            f"Expected a --trainer.strategy that starts this command in each process, but got {name}, which hangs if a "
            f"process fails. Use {instead}."
        )


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


def _check_callbacks(config: Namespace) -> None:
    for entry in _callbacks(config).values():
        callback = class_of(entry)
        for kind, reason in REJECTED.items():
            if callback is not None and issubclass(callback, kind):
                raise RunError(f"Expected no {callback.__name__} among the callbacks, because {reason}.")


def class_of(entry: Any) -> type | None:
    """Return the class of an entry of a config; None if the entry is none or off."""
    if not entry:
        return None
    module, _, name = entry.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _check_plateau_interval(config: Namespace) -> None:
    for entry in _listed(config.get("model.init_args.lr_scheduler")):
        if _is_plateau(entry) and config.get("model.init_args.lr_interval") == "step":
            raise RunError(
                "Expected --model.lr_interval epoch for ReduceLROnPlateau, because its metric is not updated in every "
                "step, but got step."
            )


def _read_at_epoch_end(config: Namespace) -> None:
    """Read monitored training metrics at the end of the epoch: after a validation, they are not logged yet."""
    for _, monitor, settings in _monitoring(config).values():
        for name in AT_EPOCH_END:
            if monitor is not None and is_of_training(monitor) and settings.get(name, False) is None:
                settings[name] = True


def _complete_modes(config: Namespace, given: Callable[[], Namespace]) -> None:
    """Set the mode of each monitored metric by its name, and reject a mode that contradicts the name."""
    for key, (option, monitor, settings) in _monitoring(config).items():
        if monitor is None or settings.get("mode") not in ("min", "max"):
            continue
        if config.trainer.limit_val_batches == 0 and is_of_validation(monitor):
            _reject_without_validation(option, monitor)
        better = better_mode(monitor)
        if better == settings.mode:
            continue
        mode = _monitoring(given()).get(key, (option, monitor, settings))[2].get("mode")
        if better is None and mode is None:
            raise RunError(f"Expected {option} min or max, because it does not follow from the name {monitor}.")
        if better is not None and mode is not None:
            raise RunError(f"Expected {option} {better} for {monitor}, but got {mode}, which selects the worst value.")
        settings.mode = better or mode


def _reject_without_validation(option: str, monitor: str) -> None:
    if option != CHECKPOINT:
        raise RunError(
            f"Expected a training metric for {option.removeprefix('mode of ')}, because "
            f"--trainer.limit_val_batches is 0, but got {monitor}."
        )
    rank_zero_info(
        f"No best.ckpt will be written: --trainer.limit_val_batches is 0, so {monitor} is not logged. To select it by "
        "the training images, set --checkpoint.monitor train/loss."
    )


def _monitoring(config: Namespace) -> dict[str, tuple[str, str | None, Namespace]]:
    """Return (option of the mode, monitored metric, settings) of everything that may monitor a metric, by key."""
    entries: dict[str, tuple[str, str | None, Any]] = {"checkpoint": (CHECKPOINT, None, config.get("checkpoint"))}
    for key, entry in _callbacks(config).items():
        entries[key] = f"mode of {entry.class_path.rpartition('.')[2]}", None, entry.get("init_args")
    for i, entry in enumerate(_listed(config.get("model.init_args.lr_scheduler"))):
        default = "val/loss" if _is_plateau(entry) else None  # torch's has no monitor; see build_scheduler
        entries[f"model.lr_scheduler.{i}"] = "--model.lr_scheduler.mode", default, entry.get("init_args")
    complete = {key: (option, default, settings or Namespace()) for key, (option, default, settings) in entries.items()}
    return {
        key: (option, settings.get("monitor", default), settings)
        for key, (option, default, settings) in complete.items()
    }


def _callbacks(config: Namespace) -> dict[str, Namespace]:
    """Return all callbacks, by name or by index in trainer.callbacks."""
    named = {f"callbacks.{name}": entry for name, entry in vars(config.get("callbacks", Namespace())).items()}
    listed = {f"trainer.callbacks.{i}": entry for i, entry in enumerate(_listed(config.get("trainer.callbacks")))}
    return {key: entry for key, entry in (named | listed).items() if entry}


def _is_plateau(entry: Namespace) -> bool:
    return str(entry.class_path).endswith("ReduceLROnPlateau")


def _listed(entries: Any) -> list[Namespace]:
    return entries if isinstance(entries, list) else [entries] if entries else []
