"""Check settings that types cannot check, and derive defaults from other settings, before a run exists."""

import importlib
import re
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, OnExceptionCheckpoint
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_modules.optim.monitors import better_mode, is_of_training, is_of_validation

MAX_SEED = 2**32 - 1  # NumPy's
NOT_ZERO = (
    *("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches"),
    *("check_val_every_n_epoch", "val_check_interval"),
)
CHECKPOINT = "--checkpoint.mode"
# of EarlyStopping and ModelCheckpoint: whether they read what they monitor at an epoch's end, or after a validation
AT_EPOCH_END = ("check_on_train_epoch_end", "save_on_train_epoch_end")
REFUSED = {
    LearningRateFinder: "it sets one learning rate for all param groups. Give --model.optimizer.lr",
    BatchSizeFinder: "it trains for a while before the run. Give --data.batch_size",
    OnExceptionCheckpoint: "a new run would start from what another has left. `fit --run last` resumes after a failure",
}


def check_config(command: str, config: Namespace, given: Callable[[], Namespace]) -> None:
    """Check a config, and complete the settings that depend on what is monitored.

    Args:
        command: fit, validate or test.
        config: All its settings.
        given: Returns the settings that are given, without defaults.

    Raises:
        MisconfigurationException: The run would fail, hang or train nothing.
    """
    trainer = config.trainer
    check_seed_range(config.seed_everything)
    if trainer.barebones:
        raise MisconfigurationException(
            "Expected --trainer.barebones false, because a run has logs and checkpoints, but got true. What they cost "
            "is measured by scripts/benchmark_step.py."
        )
    _check_strategy(trainer.strategy)
    if command == "fit":
        for name in NOT_ZERO:
            if trainer[name] == 0:
                raise MisconfigurationException(f"Expected --trainer.{name} other than 0, but got 0.")
        _check_callbacks(trainer.callbacks)
        _check_plateau_interval(config)
        _complete_moments(config)
        _complete_modes(config, given)


def check_seed_range(seed: int | bool) -> None:
    """Raise MisconfigurationException if NumPy does not take a seed."""
    if not 0 <= seed <= MAX_SEED:
        raise MisconfigurationException(f"Expected --seed_everything from 0 to {MAX_SEED}, but got {seed}.")


def _check_strategy(strategy: Any) -> None:
    """Reject strategies that fork or spawn: their processes lack threads, or hang when one of them fails."""
    if isinstance(strategy, str):
        known = StrategyRegistry[strategy]["init_params"] if strategy in StrategyRegistry else {}
        name, instead = strategy, re.sub("_(fork|spawn|notebook)", "", strategy)
    else:
        known = strategy.get("init_args") or {}
        name, instead = f"start_method {known.get('start_method')}", "start_method popen"
    if (known.get("start_method") or "popen") != "popen":
        raise MisconfigurationException(
            f"Expected a --trainer.strategy that starts this command in each process, but got {name}, with which a run "
            f"hangs when a process fails. Give {instead}."
        )


def _check_callbacks(callbacks: Any) -> None:
    for entry in _listed(callbacks):
        module, _, name = entry.class_path.rpartition(".")
        for refused, reason in REFUSED.items():
            if issubclass(getattr(importlib.import_module(module), name), refused):
                raise MisconfigurationException(f"Expected no {name} in trainer.callbacks, because {reason}.")


def _check_plateau_interval(config: Namespace) -> None:
    for entry in _listed(config.get("model.init_args.lr_scheduler")):
        if _is_plateau(entry) and config.get("model.init_args.lr_interval") == "step":
            raise MisconfigurationException(
                "Expected --model.lr_interval epoch for ReduceLROnPlateau, because not every step has a new value of "
                "what it monitors, but got step."
            )


def _complete_moments(config: Namespace) -> None:
    """Read monitored metrics of training at the epoch's end, because they are not logged yet after a validation."""
    for _, monitor, settings in _monitoring(config):
        for name in AT_EPOCH_END:
            if monitor is not None and is_of_training(monitor) and settings.get(name, False) is None:
                settings[name] = True


def _complete_modes(config: Namespace, given: Callable[[], Namespace]) -> None:
    """Set the mode in which a monitored metric is better, where only the class's default says another."""
    for i, (option, monitor, settings) in enumerate(_monitoring(config)):
        if monitor is None or settings.get("mode") not in ("min", "max"):
            continue
        if config.trainer.limit_val_batches == 0 and is_of_validation(monitor):
            _refuse_without_validation(option, monitor)
        better = better_mode(monitor)
        if better == settings.mode:
            continue
        asked = _monitoring(given())[i][2].get("mode")
        if better is None and asked is None:
            raise MisconfigurationException(
                f"Expected {option} as well, min or max, because the name {monitor} does not tell which is better."
            )
        if better is not None and asked is not None:
            raise MisconfigurationException(
                f"Expected {option} {better} for {monitor}, but got {asked}, by which the worst is taken for the best."
            )
        settings.mode = better or asked


def _refuse_without_validation(option: str, monitor: str) -> None:
    if option != CHECKPOINT:
        raise MisconfigurationException(
            f"Expected a metric of training for {option.removeprefix('mode of ')}, because "
            f"--trainer.limit_val_batches is 0, but got {monitor}."
        )
    rank_zero_info(
        f"No best.ckpt will be written, because --trainer.limit_val_batches is 0, so that there is no {monitor}. To "
        "choose it by the training images, give --checkpoint.monitor train/loss."
    )


def _monitoring(config: Namespace) -> list[tuple[str, str | None, Namespace]]:
    """Return the settings of all that may monitor a metric, each with what to call its mode, and the metric."""
    found: list[tuple[str, str | None, Any]] = [(CHECKPOINT, None, config.get("checkpoint"))]
    for entry in _listed(config.get("trainer.callbacks")):
        found += [(f"mode of {entry.class_path.rpartition('.')[2]}", None, entry.get("init_args"))]
    for entry in _listed(config.get("model.init_args.lr_scheduler")):
        default = "val/loss" if _is_plateau(entry) else None  # torch's has no monitor; see build_scheduler
        found += [("--model.lr_scheduler.mode", default, entry.get("init_args"))]
    entries = [(option, default, settings or Namespace()) for option, default, settings in found]
    return [(option, settings.get("monitor", default), settings) for option, default, settings in entries]


def _is_plateau(entry: Namespace) -> bool:
    return str(entry.class_path).endswith("ReduceLROnPlateau")


def _listed(entries: Any) -> list[Namespace]:
    return entries if isinstance(entries, list) else [entries] if entries else []
