"""The result of a diagnosis in words: for the terminal, and for doctor.json."""

import math
import re
import shlex
from typing import Any

from project import __version__
from project.doctor.causes import ALARM, CAUSES, Finding, diagnose, find, is_unknown
from project.doctor.symptoms import EPOCHS, STEPS, SYMPTOMS, Facts, Known, Symptom, complete, symptoms
from project.runs.config import flatten

USUAL_UPDATE = 5e-3  # of the weights in a step, for which a learning rate is suggested
# symptoms that say when to judge, or exclude another cause, and are no faults themselves
CONDITIONS = {"second_half", "finished", "many_steps", "usual_weights", "usual_size", "readable_labels", "above_chance"}
NEEDED = {"data", "gradients", "trial", "examination"}  # steps without which nothing is called healthy
# causes that only the examination before training looks for
OF_FILES = dict.fromkeys(("leak", "shifted_split"), "only python -m project doctor --config FILE shows it")
OPTION = re.compile(r"--((?:model|data|trainer)[\w.]*\w)")
HEALTHY = "Healthy: none of {} causes was found."
TOO_EARLY = "Too early to tell: no cause was found, but too little was trained or learned, or checks failed."


def report(facts: Facts, failed: dict[str, str], silenced: frozenset[str], config: Any = None) -> dict[str, Any]:
    """Return the content of doctor.json: one alarm at most, and two alternatives, which are sure if the alarm is.

    Args:
        facts: What was measured.
        failed: What could not be checked, with the reason.
        silenced: Causes that are no alarms.
        config: Content of config.yaml, for present values and keys of options.
    """
    facts, found = complete(facts), symptoms(facts)
    entries = [entry_of(each, facts, found, config) for each in diagnose(found, silenced)]
    epochs, steps = facts.get("epochs", EPOCHS), facts.get("steps", STEPS)
    unexplained = not silenced and max(found.get("trial_fails", 0.0), found.get("not_learning", 0.0)) >= ALARM
    rises = too_short(facts, found) and found.get("underfits", 0.0) >= ALARM
    early = epochs < EPOCHS or steps < STEPS or unexplained or rises or bool(NEEDED & failed.keys())
    reasons = OF_FILES if "epochs" in facts else {}
    unknown = [
        f"{name} ({reasons.get(name, 'not measured here')})"
        for name, cause in CAUSES.items()
        if is_unknown(cause, found)
    ]
    is_sure = bool(entries) and entries[0]["confidence"] == "sure"
    others = [each for each in entries[1:] if each["confidence"] == "sure" or not is_sure]
    return {
        "verdict": "alarm" if entries else "too_early" if early else "healthy",
        "alarms": entries[:1],
        "alternatives": others[:2],
        "notes": notes(facts, found) + [f"{name} is silenced." for name in sorted(silenced)],
        "not_checked": [f"{name} ({error[:100]})" for name, error in failed.items()] + unknown,
        "version": __version__,
    }


def entry_of(finding: Finding, facts: Known, found: dict[str, float], config: Any) -> dict[str, Any]:
    """Return an alarm."""
    cause, texts = finding.cause, words(facts)
    says, why, change = (text.format_map(texts) for text in (cause.says, cause.why, cause.change))
    option, _, value = change.removeprefix("--").partition(" ")
    key, now = locate(config, match[1]) if (match := OPTION.search(change)) else (None, None)
    name = option.rpartition(".")[2]
    if value == "nan":  # an optimizer without one learning rate
        change = f"Change {option}."
    of_groups = flatten(locate(config, "model.param_groups")[1])
    if option.startswith("model.optimizer.") and any(k.endswith(f".{name}") and v is not None for k, v in of_groups):
        change = f"Set {change}, and change {name} alike in --model.param_groups, where groups set their own."
    shown = {each: SYMPTOMS[each] for each in finding.shown_by if each not in CONDITIONS}
    upstream = [each for each in CAUSES.values() if each.symptoms & cause.symptoms - CONDITIONS]
    upstream = upstream[: upstream.index(cause)]
    return {
        "cause": cause.name,
        "family": cause.family,
        "confidence": finding.confidence,
        "says": says,
        "why": why,
        "evidence": {each: facts[symptom.fact] for each, symptom in shown.items()},
        "healthy": {each: healthy(symptom) for each, symptom in shown.items()},
        "remedy": {"option": option, "value": value} if change.startswith("--") else {"text": change},
        "key": key,
        "now": None if isinstance(now, list | dict) else now,
        "ruled_out": [
            each.name for each in upstream if find(each, found).strength < ALARM and not is_unknown(each, found)
        ],
        "tried": None,
    }


def locate(config: Any, option: str) -> tuple[str | None, Any]:
    """Return the key of an option in a config.yaml, and its value; None if the config has no such place."""
    keys: list[str] = []
    for name in option.split("."):
        if isinstance(config, dict) and name not in config and "init_args" in config:
            keys, config = [*keys, "init_args"], config["init_args"]
        if not isinstance(config, dict) or name not in config:
            return None, None
        keys, config = [*keys, name], config[name]
    return ".".join(keys), config


def words(facts: Known) -> Known:
    """Return facts and other numbers that ``causes.md`` names."""
    linear = facts["linear_acc"]
    lr, factor, clip = facts["lr"], facts.get("repair_factor"), facts.get("grad_norm_p90") or 1.0
    to_usual = 10 ** math.floor(math.log10(USUAL_UPDATE / max(facts.get("update_ratio", 1e-3), 1e-9)))
    momentum = "optimizer.betas [0.9,0.999]" if facts.get("has_betas") else "optimizer.momentum 0.9"
    rules = [
        f'{{method: kaiming_normal, layer: {each}, pattern: "*weight", arguments: {{nonlinearity: relu}}}}'
        for each in facts.get("layer_types") or ("Conv2d", "Linear")
    ]
    if facts["dead_at_start"] > 0.5:
        rules.append('{method: constant, pattern: "*bias", arguments: {val: 0}}')
    texts = {key: ", ".join(map(str, each[:3])) if isinstance(each, list) else each for key, each in facts.items()}
    texts |= {
        "lower_lr": lr * (factor or min(to_usual, 0.1)),
        # the trial with this factor amounts to the whole training
        "higher_lr": lr * (max(factor / 3, 3) if factor else min(max(to_usual, 10), 1e4)),
        "momentum_option": "lr_scheduler.max_momentum 0.95" if facts.get("cycles_momentum") else momentum,
        "clip": clip,
        "loose_clip": max(clip, 1.0),  # gradients are larger once something is learned
        "initializers": f"[{', '.join(rules)}]",
        "sharper": "sharper" if facts["val_sharpness"] > 1 else "less sharp",
        "baseline": "guessing" if math.isnan(linear) else f"a linear classifier of 8x8 pixels {linear:.0%}, guessing",
    }
    return Known(texts)


def healthy(limits: Symptom) -> str:
    """Return the healthy range of a fact in words."""
    return f"at {'most' if limits.healthy < limits.ill else 'least'} {limits.healthy:g}: {limits.meaning}"


def notes(facts: Known, found: dict[str, float]) -> list[str]:
    """Return what is worth knowing, but no alarm."""
    lines = []
    if (points := 98 / max(facts["val_images"], 1) ** 0.5) > 3:
        images = facts["val_images"]
        lines.append(f"{images} validation images: accuracy is known to within {points:.0f} points; see --data.folds.")
    if found.get("rectified_outputs", 0.0) >= ALARM:
        lines.append("The outputs are never negative, as after a ReLU: without it, a network often learns faster.")
    if facts.get("unused_names"):
        lines.append(f"Layers that forward does not use: {', '.join(facts['unused_names'][:3])}.")
    if facts["end_of_peak"] > 0.5 and facts["planned_steps"] > 100:
        ends = f"The learning rate ends at {facts['end_of_peak']:.0%} of its peak"
        lines.append(f"{ends}; a schedule that falls to 0 usually gives better results.")
    if too_short(facts, found):
        epochs = 2 * len(facts["val_accs"])
        lines.append(f"val/acc still rises: training may be too short; try --trainer.max_epochs {epochs}.")
    return lines


def too_short(facts: Facts, found: dict[str, float]) -> bool:
    """Return whether accuracy rose by more than its noise in the last quarter of all epochs."""
    is_over = len(facts.get("val_accs") or []) == facts.get("planned_epochs")
    return is_over and found.get("still_rises", 0.0) >= ALARM


def terminal(result: dict[str, Any]) -> list[str]:
    """Return at most 15 lines about a result."""
    lines = []
    for alarm in result["alarms"]:
        name = alarm["cause"]
        lines += [
            f"Alarm ({alarm['confidence']}): {name}",
            f"  {alarm['says']}",
            *("  Found      {}: {} ({}), healthy {}".format(*row) for row in evidence(alarm)),
            f"  Why        {alarm['why']}",
            f"  Change     {change(alarm)}",
            *([f"  Ruled out  {', '.join(alarm['ruled_out'][:6])}"] if alarm["ruled_out"] else []),
            f"  If it is intended: --silence {name}, or in fit --callbacks.doctor.silence '[{name}]'",
        ]
    reasons: dict[str, list[str]] = {}
    for name, _, reason in (each.removesuffix(")").partition(" (") for each in result["not_checked"]):
        reasons.setdefault(reason, []).append(name)
    if not lines:
        unknown = CAUSES.keys() & {name for names in reasons.values() for name in names}
        lines.append(HEALTHY.format(len(CAUSES) - len(unknown)) if result["verdict"] == "healthy" else TOO_EARLY)
    lines += [f"Or ({other['confidence']}): {other['cause']}. {other['says']}" for other in result["alternatives"]]
    if not result["alarms"]:  # most others are consequences
        lines += [f"Note: {note}" for note in result["notes"][:3]]
    for reason, names in [*reasons.items()][:2]:
        more = f", and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"Not checked ({reason}): {', '.join(names[:5])}{more}.")
    return lines


def evidence(alarm: dict[str, Any]) -> list[list[str]]:
    """Return the symptoms of an alarm, each with its number, what that means, and the healthy range."""
    rows = []
    for (name, value), text in zip(alarm["evidence"].items(), alarm["healthy"].values(), strict=True):
        limit, _, meaning = text.partition(": ")
        number = f"{value:.3g}" if isinstance(value, float) else f"{value:,}"
        rows.append([name.replace("_", " "), number, meaning, limit])
    return rows


def change(alarm: dict[str, Any]) -> str:
    """Return the remedy of an alarm, with the key of its option in YAML and the present value."""
    remedy, now = alarm["remedy"], f", now {alarm['now']}" if alarm.get("now") is not None else ""
    text = remedy.get("text") or "--{option} {}".format(shlex.quote(remedy["value"]), **remedy)
    return f"{text} (in YAML {alarm['key']}{now})" if alarm.get("key") else str(text)
