"""Diagnose a run, finished or not, from what was recorded in its directory. Imports no torch."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomic_files import write_atomically
from project.doctor.causes import CAUSES
from project.doctor.messages import report, terminal
from project.errors import RunError, did_you_mean
from project.runs.config import CONFIG, load_config, setting
from project.runs.metrics import PER_EPOCH, read_metrics

FACTS, RESULT = "doctor_facts.json", "doctor.json"  # of callbacks.Doctor; of this module
CURVES = {"loss": "losses", "acc": "accs"}


def read_facts(run: Path) -> dict[str, Any]:
    """Return the facts that the callback collected, and the learning curves.

    Raises:
        RunError: The run has none, or they are damaged.
    """
    file = run / FACTS
    if not file.is_file():
        raise RunError(
            f"Expected {file}, which the callback `doctor` writes from the first epoch on, but it does not exist. "
            f"Train with it, or examine the settings: python -m project doctor --config {run / CONFIG}"
        )
    try:
        facts: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise RunError(f"Expected the facts of a run in {file}, but got: {error}.") from error
    rows = read_metrics(run, PER_EPOCH)
    for tag in PER_EPOCH:
        stage, _, metric = tag.partition("/")
        of_epochs = {row["epoch"]: row[tag] for row in rows if math.isfinite(row.get(tag, math.nan))}
        if of_epochs and not (tag == "train/acc" and facts.get("mixed_targets")):
            facts[f"{stage}_{CURVES[metric]}"] = [*of_epochs.values()]
    if "val_accs" in facts:
        facts.setdefault("val_acc", facts["val_accs"][-1])  # that of the probes is of the same epoch as their facts
    facts["epochs"] = max(facts.get("epochs", 0), len(facts.get("train_losses", [])))
    return facts


def known_causes(names: str | Sequence[str]) -> frozenset[str]:
    """Return names of causes to silence, a list or with commas; raise RunError for an unknown one."""
    known = frozenset(filter(None, names.split(",") if isinstance(names, str) else names))
    for name in known - CAUSES.keys():
        raise RunError(f"Expected causes of docs/doctor.md to silence, but got {name!r}.{did_you_mean(name, CAUSES)}")
    return known


def diagnose_run(run: Path, silenced: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Write doctor.json of a run, and return its content. Causes that its config silences are no alarms either.

    Raises:
        RunError: The run has no facts, or its config silences an unknown cause.
    """
    config = load_config(run)
    of_config = setting(config, "callbacks.doctor.init_args.silence") or []
    result = report(read_facts(run), {}, silenced | known_causes(of_config), config)
    write_result(result, run / RESULT)
    return result


def judge(run: Path, silenced: frozenset[str] = frozenset()) -> tuple[str | None, list[str]]:
    """Write doctor.json of a run, and return the cause of its alarm, if there is one, and all of it in words."""
    result = diagnose_run(run, silenced)
    return next((alarm["cause"] for alarm in result["alarms"]), None), terminal(result)


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write doctor.json."""
    with write_atomically(path) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
