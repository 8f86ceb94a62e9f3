"""What a sweep does: a YAML file of options of ``fit``, each with its values or its range."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from project.errors import RunError, did_you_mean
from project.runs.command_line import is_class
from project.runs.config import read_yaml

METHODS = ("grid", "random", "tpe")
PRUNING = ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count")
REPEATS = ("seed_everything", "data.fold", "data.folds")  # trials that differ only in these repeat an experiment
RESERVED = ("config", "run", "runs_dir", "ckpt_path", "test_after_fit", "checkpoint.monitor", "checkpoint.mode")
SHAPE = "KEY: [a, b, ...] or KEY: {low: 0.001, high: 1, log: true}"


class Plan(NamedTuple):
    """Content of a sweep file.

    Attributes:
        parameters: For each option of ``fit``, a list of values, or a range: ``low``, ``high`` and ``log``.
        method: "grid", "random" or "tpe".
        trials: Number of trials.
        seed: Seed of the random choices of the n-th trial, together with n.
        metric: Metric to optimise; None for that of ``--checkpoint.monitor``.
        pruning: Arguments of Optuna's ``SuccessiveHalvingPruner``, in validations; None for no pruning.
    """

    parameters: dict[str, Any]
    method: str
    trials: int
    seed: int = 0
    metric: str | None = None
    pruning: dict[str, int] | None = None

    @property
    def swept(self) -> list[str]:
        """The options with more than one value."""
        return [key for key, values in self.parameters.items() if isinstance(values, dict) or len(values) > 1]


def read_plan(file: Path) -> Plan:
    """Return the content of a sweep file.

    Raises:
        RunError: The file does not exist, or is not a sweep.
    """
    try:
        content = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"Expected a sweep file at --sweep, but got: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise RunError(f"Expected `parameters:` with lines such as {SHAPE} in {file}, but found none.")
    for name in content:
        if name not in Plan._fields:
            known = ", ".join(Plan._fields)
            raise RunError(f"Expected {known} in {file}, but got {name}.{did_you_mean(str(name), Plan._fields)}")
    parameters = {str(key): _values(file, str(key), values) for key, values in content["parameters"].items()}
    is_grid = all(isinstance(values, list) for values in parameters.values())
    method, trials = content.get("method", "grid" if is_grid else "tpe"), content.get("trials")
    if method not in METHODS or (method == "grid" and not is_grid):
        expected = "method: random or tpe, because a parameter is a range" if method == "grid" else " or ".join(METHODS)
        raise RunError(f"Expected {expected} in {file}, but got method: {method}.")
    if method == "grid":
        size = math.prod(map(len, parameters.values()))
        if trials not in (None, size):
            raise RunError(f"Expected no `trials:` in {file}, because a grid has all {size}, but got {trials}.")
        trials = size
    pruning, metric, seed = content.get("pruning"), content.get("metric"), content.get("seed", 0)
    for name, number in {"trials": trials, "seed": seed + 1 if type(seed) is int else seed, **(pruning or {})}.items():
        if type(number) is not int or number < 0 or (number < 1 and name in ("trials", "seed", "min_resource")):
            raise RunError(f"Expected a positive integer for `{name}:` in {file}, but got {content.get(name, number)}.")
    if unknown := [name for name in pruning or {} if name not in PRUNING]:
        raise RunError(f"Expected {', '.join(PRUNING)} below `pruning:` in {file}, but got {unknown[0]}.")
    if metric is not None and (not isinstance(metric, str) or metric.startswith("test")):
        raise RunError(f"Expected a metric of validation for `metric:` in {file}, such as val/acc, but got {metric}.")
    return Plan(parameters, method, trials, seed, metric, pruning)


def _values(file: Path, key: str, values: Any) -> Any:
    """Return the values of a parameter: a list, or a range with ``low``, ``high`` and ``log``."""
    if key in RESERVED:
        raise RunError(f"Expected options of a trial in {file}, but got {key}, which is the same for all trials.")
    if isinstance(values, dict) and "low" in values:
        limits = {"log": False, **values}
        low, high = limits.get("low"), limits.get("high")
        numbers = all(type(limit) in (int, float) and math.isfinite(limit) for limit in (low, high))
        is_range = numbers and low < high and limits.keys() == {"low", "high", "log"} and type(limits["log"]) is bool
        if not is_range or (limits["log"] and low <= 0):
            raise RunError(f"Expected low < high, above 0 if log is true, for {key} in {file}, but got {values}.")
        return limits
    values = values if isinstance(values, list) else [values]
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        raise RunError(f"Expected different values for {key} in {file}, but got {values}.")
    return [option_text(value) if isinstance(value, list | dict) else value for value in values]  # for Optuna


def option_text(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def words(value: Any) -> str:
    """Return a value for tables: only the name of a class."""
    return value.rpartition(".")[2] if isinstance(value, str) and is_class(value) else option_text(value)


def grid_point(plan: Plan, number: int) -> dict[str, Any]:
    """Return the parameters of a trial of a grid; those of the last option change first."""
    points = itertools.product(*plan.parameters.values())
    return dict(zip(plan.parameters, next(itertools.islice(points, number, None)), strict=True))


def options_of(parameters: dict[str, Any]) -> list[str]:
    """Return the options of ``fit`` that set parameters."""
    return [f"--{key}={option_text(value)}" for key, value in parameters.items()]


def extremes(plan: Plan) -> list[dict[str, Any]]:
    """Return parameters that contain each value of each list, and both ends of each range, at least once."""
    ends = {key: [v["low"], v["high"]] if isinstance(v, dict) else v for key, v in plan.parameters.items()}
    return [
        {key: values[min(i, len(values) - 1)] for key, values in ends.items()}
        for i in range(max(map(len, ends.values()), default=1))
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest ends of dotted keys that differ from each other: "lr" for "model.optimizer.lr"."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names[key] = next(e for e in ends if e == key or not any(f".{k}".endswith(f".{e}") for k in keys if k != key))
    return names
