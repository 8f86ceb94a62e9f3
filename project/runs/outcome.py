"""Describe the results of a run as facts and numbers, and compare those of two. Imports no torch."""

from pathlib import Path
from typing import Any

from project.runs import record
from project.runs.config import BEST, CONFIG, LAST, PREVIOUS_CONFIGS, differences, load_config, setting
from project.runs.metrics import PER_EPOCH, format_metric, read_metrics
from project.runs.results import Result

WORDS = {"acc": "accuracy", "loss": "loss"}
MOST_ARGUMENTS = 3  # of a network
NOTHING = "\N{EN DASH}"


def subject(config: dict[str, Any]) -> str:
    """Return the network and the data of a config as text."""
    network = _class(config, "model.init_args.network", arguments=True) or _class(config, "model")
    return f"{network or 'An unknown network'} on {_class(config, 'data') or 'unknown data'}"


def facts(run: Path, result: Result) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of validation, test, training and checkpoint of a run."""
    validation = ("none yet", "")
    if result.val is not None and result.metric is not None:
        remark = f"best {WORDS[result.metric]} at epoch {result.val_epoch}"
        validation = (format_metric(result.val, result.metric), remark)
    checkpoint = next((str(file) for file in (BEST, LAST) if (run / file).is_file()), "none")
    return [
        ("Validation", *validation),
        ("Test", *_test(result)),
        ("Training", *_training(run, result)),
        ("Checkpoint", checkpoint, ""),
    ]


def numbers(run: Path, result: Result) -> dict[str, tuple[float, str]]:
    """Return the results of a run by name, each with the metric that defines its format."""
    metric = result.metric or ""
    tags = (*PER_EPOCH, "time/images_per_second")
    last = {tag: row[tag] for row in read_metrics(run, tags) for tag in tags if tag in row}
    values = {
        "epochs trained": (result.epochs, ""),
        f"best validation {WORDS.get(metric)}": (result.val, metric),
        "at epoch": (result.val_epoch, ""),
    }
    for tag in PER_EPOCH:
        stage, name = tag.replace("train/", "training/").replace("val/", "validation/").split("/")
        values[f"last {stage} {WORDS[name]}"] = (last.get(tag), name)
    values[f"test {WORDS.get(metric)}"] = (result.test if result.test_note is None else None, metric)
    values["minutes"] = (result.minutes, "")
    values["images per second, last epoch"] = (last.get("time/images_per_second"), "")
    return {name: (float(value), metric) for name, (value, metric) in values.items() if value is not None}


def compare(a: tuple[Path, Result], b: tuple[Path, Result]) -> list[list[str]]:
    """Return (name, value of A, value of B, B minus A) of each result of two runs."""
    left, right = numbers(*a), numbers(*b)
    rows = []
    for name in dict.fromkeys([*left, *right]):
        cells = [format_metric(*values[name]) if name in values else NOTHING for values in (left, right)]
        if name in left and name in right:
            difference = right[name][0] - left[name][0]
            cells.append(("+" if difference > 0 else "") + format_metric(difference, left[name][1]))
        rows.append([name, *cells, NOTHING][:4])
    return rows


def changes(run: Path) -> str:
    """Return a warning about settings that changed when a run was resumed, or ""."""
    earlier = sorted(run.glob(f"{PREVIOUS_CONFIGS}/*/{CONFIG}"))
    configs = [*(load_config(file.parent) for file in earlier), load_config(run)]
    changed = [
        f"{key} {old} -> {new} ({file.parent.name})"
        for file, before, after in zip(earlier, configs, configs[1:], strict=False)  # each config and the next one
        for key, old, new in differences(before, after)
    ]
    return f"Settings changed when the run was resumed: {', '.join(changed)}." if changed else ""


def _class(config: dict[str, Any], key: str, arguments: bool = False) -> str:
    """Return the name of a class in the config, with its first arguments; "" if there is none."""
    value = setting(config, key)
    path = value.get("class_path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        return ""
    given = (setting(config, f"{key}.init_args") or {}) if arguments else {}
    plain = [f"{name} {value}" for name, value in given.items() if isinstance(value, str | int | float)]
    return path.rpartition(".")[2] + (f" ({', '.join(plain[:MOST_ARGUMENTS])})" if plain else "")


def _test(result: Result) -> tuple[str, str]:
    if result.test is None or result.metric is None:
        return ("no result" if result.tests else "not tested"), result.test_note or ""
    epoch = "" if result.test_epoch is None else f" of epoch {result.test_epoch}"
    remarks = [result.test_note or f"{BEST}{epoch}"]
    remarks += [f"the latest of {result.tests} tests"] if result.tests > 1 else []
    return format_metric(result.test, result.metric), ", ".join(remarks)


def _training(run: Path, result: Result) -> tuple[str, str]:
    """Return the state of a run, and its progress, time and error."""
    state, epochs = result.state or "state not recorded", result.epochs or 0
    if state == "running" and record.is_own(run):  # the process that trained writes the report
        state = "finished"
    steps = setting(result.settings, "trainer.max_steps") or -1
    if state == "finished" and steps < 0 and 0 < epochs < (result.planned_epochs or 0):
        state = "stopped early"
    planned = "" if result.planned_epochs is None else f" of {result.planned_epochs} planned"
    remarks = [f"{epochs}{planned} epochs" + (f" of {steps} planned steps" if steps >= 0 else "")]
    if result.minutes:
        remarks.append(f"{result.minutes:.1f} minutes" if result.minutes >= 1 else "less than a minute")
    return state, ", ".join([*remarks, *filter(None, [record.read(run).get("error")])])
