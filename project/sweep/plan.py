"""What a sweep does: a YAML file of options of ``fit``, each with its values or its range."""

import itertools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from project.errors import RunError, did_you_mean
from project.runs.config import is_class, read_yaml

METHODS = ("grid", "random", "tpe")
REPEATS = ("seed_everything", "data.fold", "data.folds")  # trials that differ only in these repeat an experiment
RESERVED = ("config", "run", "runs_dir", "ckpt_path", "test_after_fit", "checkpoint.monitor", "checkpoint.mode")
SHAPE = "lines such as KEY: [a, b] or KEY: {low: 0.001, high: 1, log: true}"


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

    def expect(is_met: bool, what: str, got: Any) -> None:
        if not is_met:
            raise RunError(f"Expected {what} in {file}, but got {got}.")

    try:
        content = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"Expected a sweep file at --sweep, but got: {' '.join(str(error).split())}.") from error
    content = content if isinstance(content, dict) else {}
    for name in content:
        hint = did_you_mean(str(name), Plan._fields).replace(" Did you mean ", " (did you mean ").replace("?", "?)")
        expect(name in Plan._fields, " or ".join(Plan._fields), f"{name}{hint}")
    parameters: dict[str, Any] = content.get("parameters") or {}
    expect(isinstance(parameters, dict) and parameters != {}, f"`parameters:` with {SHAPE}", parameters or "none")
    for key, values in parameters.items():
        expect(key not in RESERVED, "options of single trials", f"{key}, which is the same for all")
        if isinstance(values, dict) and {"low", "high"} & values.keys():
            limits: dict[str, Any] = {"low": math.nan, "high": math.nan, "log": False, **values}
            low, high, log, *others = limits.values()
            numbers = type(low) in (int, float) and type(high) in (int, float) and math.isfinite(high - low)
            is_range = numbers and low < high and (low > 0 or log is False) and type(log) is bool and not others
            expect(is_range, f"{key} with low < high, above 0 if log is true,", values)
            parameters[key] = limits
            continue
        values = values if isinstance(values, list) else [values]
        expect(values != [] and not any(v in values[:i] for i, v in enumerate(values)), f"different {key}", values)
        # texts, because Optuna accepts only scalars
        parameters[key] = [option_text(value) if isinstance(value, list | dict) else value for value in values]

    is_grid = all(isinstance(values, list) for values in parameters.values())
    defaults: dict[str, Any] = {"method": "grid" if is_grid else "tpe", "trials": 0}
    plan = Plan(**defaults | content)
    expect(plan.method in METHODS, f"method {' or '.join(METHODS)}", plan.method)
    if plan.method == "grid":
        expect(is_grid, "method random or tpe, because a parameter is a range,", "grid")
        size = math.prod(map(len, parameters.values()))
        expect(plan.trials in (0, size), f"no trials, because a grid has all {size},", plan.trials)
        plan = plan._replace(trials=size)
    expect(type(plan.trials) is int and plan.trials > 0, "a positive number of trials", plan.trials)
    expect(type(plan.seed) is int and plan.seed >= 0, "a seed of 0 or more", plan.seed)
    is_metric = plan.metric is None or (isinstance(plan.metric, str) and not plan.metric.startswith("test"))
    expect(is_metric, "a metric of validation, such as val/acc,", plan.metric)
    expect(plan.pruning is None or isinstance(plan.pruning, dict), "arguments of pruning", plan.pruning)
    return plan


def option_text(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def words(value: Any) -> str:
    """Return a value for tables: only the name of a class."""
    return value.rpartition(".")[2] if is_class(value) else option_text(value)


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
