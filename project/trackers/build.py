"""Create the trackers of a run from ``trainer.logger``."""

import inspect
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from project.errors import RunError
from project.runs.config import flatten
from project.trackers.base import Tracker, protect, starting
from project.trackers.mlflow_tracker import MLFlowTracker
from project.trackers.trackio_logger import TrackioLogger
from project.trackers.wandb_tracker import WandbTracker

# instead of the classes that configs name
TRACKERS: dict[str, type[Tracker]] = {}
TRACKERS |= {tracker.title: tracker for tracker in (WandbTracker, MLFlowTracker, TrackioLogger)}


def entries_of(logger: Any) -> list[Namespace]:
    """Return the entries of ``trainer.logger`` that are classes."""
    return [entry for entry in (logger if isinstance(logger, list) else [logger]) if isinstance(entry, Namespace)]


def check_installed(text: str) -> None:
    """Check that the package of each tracker that a text names, other than in comments, is installed.

    Raises:
        RunError: One is not.
    """
    for name, tracker in TRACKERS.items():
        package = tracker.package
        if re.search(rf"^[^#\n]*\b{name}\b", text, re.MULTILINE) and find_spec(package) is None:
            raise RunError(
                f"Expected the package {package} for {name}, but it is not installed. Install it: "
                f"python -m pip install {package}"
            )


def build_trackers(entries: list[Namespace], run: Path, known: Mapping[str, Any]) -> dict[str, Logger]:
    """Return the loggers of a run by name, such as ``WandbLogger``, or ``WandbLogger#2`` for a second one.

    Arguments that have their default are set from the run, and local files are written to its directory. ``known`` is
    the field ``trackers`` of run.json: what ``records`` returned when the run was started.
    """
    parser = LightningArgumentParser()
    parser.add_argument("--logger", type=Logger)
    loggers: dict[str, Logger] = {}
    for entry in entries:
        name = entry.class_path.rpartition(".")[2]
        key = name if name not in loggers else f"{name}#{len(loggers) + 1}"
        if tracker := TRACKERS.get(name):
            usual = inspect.signature(tracker).parameters
            given = {
                argument: value
                for argument, value in vars(entry.init_args).items()
                if value is not None and (argument not in usual or value != usual[argument].default)
            }
            identifier = known.get(key, {}).get("id")
            defaults = tracker.defaults(f"{run.parent.name}/{run.name}", run, identifier, given)
            with starting(name):
                loggers[key] = tracker(**(defaults | given))
        else:
            loggers[key] = parser.instantiate_classes(Namespace(logger=entry)).logger
        protect(loggers[key])
    return loggers


def records(loggers: Mapping[str, Logger]) -> dict[str, dict[str, str | None]]:
    """Return identifier and place of each tracker for run.json."""
    trackers = {name: logger for name, logger in loggers.items() if isinstance(logger, Tracker)}
    return {name: {"id": tracker.identifier, "place": tracker.place} for name, tracker in trackers.items()}


def log_settings(loggers: Mapping[str, Logger], settings: dict[str, Any], commit: str | None) -> None:
    """Log the settings of a run, except those of trackers, which may hold passwords of servers."""
    values = {
        key: value if isinstance(value, int | float | str) else str(value)
        for key, value in flatten(settings)
        if value is not None and not key.startswith("trainer.logger")
    }
    for logger in loggers.values():
        if isinstance(logger, Tracker):
            logger.log_settings(values, commit)
