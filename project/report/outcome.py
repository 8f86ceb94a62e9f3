"""Summarise the results of a run in facts, one sentence, warnings and numbers."""

import math
from typing import Any

from project.report.curves import line_of
from project.report.legend import not_finite
from project.report.markup import number
from project.report.read import Run
from project.runs import record
from project.runs.config import BEST, CONFIG, LAST, PREVIOUS_CONFIGS, differences, load_config
from project.runs.folders import by_start, times_tested
from project.runs.metrics import circumstances, measurement_text, moment_of

METRICS = {"acc": "accuracy", "loss": "loss"}
MOST_WARNINGS = 8  # of series
MOST_CHANGES = 4  # of settings
MOST_ARGUMENTS = 3  # of a network, in the sentence
DEFAULT_EPOCHS = 1000  # Lightning's, if the config gives neither epochs nor steps


def sentence(run: Run) -> str:
    """Return network, data, and the facts of a run as one sentence."""
    texts = (f"{name.lower()} {value}" + (f" ({remark})" if remark else "") for name, value, remark in facts(run))
    return f"{subject(run)}: {', '.join(texts)}."


def subject(run: Run) -> str:
    """Return the network and the data of a run as text."""
    network = _class(run, "model.init_args.network", arguments=True) or _class(run, "model") or "An unknown network"
    return f"{network} on {_class(run, 'data') or 'unknown data'}"


def facts(run: Run) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of the results, the state and the checkpoint of a run."""
    validation, checkpoint = ("none yet", ""), ("none", "")
    if (best := run.best()) is not None:
        epoch = "" if math.isnan(best.epoch) else f" at epoch {number(best.epoch)}"
        validation = (number(best.value, best.metric), f"best {METRICS[best.metric]}{epoch}")
    if file := next((file for file in (BEST, LAST) if (run.folder / file).is_file()), None):
        moment = moment_of(run.folder / file)
        checkpoint = (f"epoch {moment.epoch + 1}" if moment else "epoch unknown", str(file))
    test, _, weights = _tested(run).partition(" by ")
    return [
        ("Validation", *validation),
        ("Test", test.removeprefix("test "), weights),
        ("Training", *_training(run)),
        ("Checkpoint", *checkpoint),
    ]


def warnings(run: Run) -> list[str]:
    """Return warnings about changed settings, NaN or Inf, and incomplete event files."""
    notes = list(filter(None, (not_finite(*line_of(run, tag, tag)) for tag in run.scalars)))
    more = [f"{len(notes) - MOST_WARNINGS} more series are not finite."] if len(notes) > MOST_WARNINGS else []
    cut = "ends within a record: it is being written, or damaged. Complete records are shown."
    return [*_changes(run), *notes[:MOST_WARNINGS], *more, *(f"{name} {cut}" for name in run.events.cut)]


def numbers(run: Run) -> dict[str, tuple[float, str]]:
    """Return the results of a run by name, each with the metric that defines its format."""
    results: dict[str, tuple[float, str]] = {"epochs trained": (run.epochs_trained, "")}
    if (best := run.best()) is not None:
        results[f"best validation {METRICS[best.metric]}"] = (best.value, best.metric)
        results["at epoch"] = (best.epoch, "")
    for stage, words in (("train", "last training"), ("val", "last validation")):
        for metric, name in METRICS.items():
            if series := run.scalars.get(f"{stage}/{metric}"):
                results[f"{words} {name}"] = (series[-1].value, metric)
    for metric, name in METRICS.items():
        if run.test and circumstances(run.test.folder).is_usual and (series := run.test.scalars.get(f"test/{metric}")):
            results[f"test {name}"] = (series[-1].value, metric)
    results["minutes"] = (run.minutes, "")
    if series := run.scalars.get("time/images_per_second"):
        results["images per second, last epoch"] = (series[-1].value, "")
    return results


def _changes(run: Run) -> list[str]:
    """Return a warning about settings that changed when a run was resumed, if any did."""
    earlier = sorted(run.folder.glob(f"{PREVIOUS_CONFIGS}/*/{CONFIG}"))
    configs = [*(load_config(file.parent) for file in earlier), run.config]
    changes = [
        f"{key} {old} -> {new} ({file.parent.name})"
        for file, before, after in zip(earlier, configs, configs[1:], strict=False)  # each config and the next one
        for key, old, new in differences(before, after)
    ]
    if not changes:
        return []
    more = f" and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    shown = ", ".join(changes[:MOST_CHANGES])
    return [
        f"Settings changed when the run was resumed: {shown}{more}. The last are shown; "
        f"{PREVIOUS_CONFIGS}/ has the earlier ones."
    ]


def _class(run: Run, key: str, arguments: bool = False) -> str:
    """Return the name of a class in the config, with its first arguments; "" if there is none."""
    value = run.setting(key)
    path = value.get("class_path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        return ""
    given: dict[str, Any] = (run.setting(f"{key}.init_args") or {}) if arguments else {}
    plain = [f"{name} {value}" for name, value in given.items() if isinstance(value, str | int | float)][
        :MOST_ARGUMENTS
    ]
    return path.rpartition(".")[2] + (f" ({', '.join(plain)})" if plain else "")


def _training(run: Run) -> tuple[str, str]:
    """Return the state of a run, and its progress, time and error."""
    info, state = record.read(run.folder), record.state_of(run.folder) or "state not recorded"
    if state == "running" and record.is_own(run.folder):  # the process that trained writes the report
        state = "finished"
    has_steps = (run.setting("trainer.max_steps") or -1) > 0
    if state == "finished" and not has_steps and 0 < run.epochs_trained < (run.setting("trainer.max_epochs") or 0):
        state = "stopped early"
    time = f"{run.minutes:.1f} minutes" if run.minutes >= 1 else "less than a minute"
    remarks = (_progress(run), time if math.isfinite(run.minutes) else "", info.get("error"))
    return state, ", ".join(filter(None, remarks))


def _progress(run: Run) -> str:
    epochs, steps = run.setting("trainer.max_epochs"), run.setting("trainer.max_steps") or -1
    trained = f"{run.epochs_trained:.0f}"
    if epochs is None and steps == -1:
        epochs = DEFAULT_EPOCHS
    if epochs is not None and epochs >= 0:
        return f"{trained} of {epochs} planned epochs"
    return f"{trained} epochs" + (f" of {steps} planned steps" if steps >= 0 else "")


def _tested(run: Run) -> str:
    if not run.tests:
        return run.old_test or "not tested"
    nothing = "started, but has no results"
    if run.test is None:
        return nothing
    result = measurement_text(run.test.folder).replace(f"{run.folder}/", "") or "tested"  # no metrics.csv
    count = times_tested(run.folder)
    more = f", the latest of {count} tests" if count > 1 else ""
    latest = max(run.tests, key=lambda test: by_start(test.folder))
    return f"{result}{more}" + ("" if latest.scalars else f"; another was {nothing}")
