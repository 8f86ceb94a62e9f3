"""The result of a diagnosis in words: for the terminal, and for doctor.json."""

import math
import re
from pathlib import Path
from typing import Any

from project import __version__
from project.doctor.causes import ALARM, CAUSES, Finding, diagnose, ruled_out, unknown
from project.doctor.symptoms import EPOCHS, RANGES, Range, symptoms, training_facts

Facts = dict[str, Any]
STEPS = 100  # before which a training is not called healthy
USUAL_UPDATE = 5e-3  # of the weights in a step, for which a learning rate is suggested
NEEDED = {"data", "gradients", "trial", "examination"}  # steps without which nothing is called healthy
ROW = re.compile(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
WORDS = Path(__file__).with_name("messages.md").read_text(encoding="utf-8")
MESSAGES = {name: texts for name, *texts in ROW.findall(WORDS)}  # what is wrong, why, and what to change
HEALTHY = "Healthy: none of {} causes was found."
TOO_EARLY = "Too early to tell: no cause was found, but too little was trained or learned, or checks failed."


def report(facts: Facts, failed: dict[str, str], silenced: frozenset[str]) -> dict[str, Any]:
    """Return the content of doctor.json: one alarm at most, and two alternatives."""
    found = symptoms(facts)
    entries = [entry_of(each, facts, found) for each in diagnose(found, silenced)]
    short = "epochs" in facts and (facts["epochs"] < EPOCHS or facts.get("steps", STEPS) < STEPS)
    unexplained = not silenced and max(found.get("trial_fails", 0.0), found.get("not_learning", 0.0)) >= ALARM
    rises = too_short(facts) and found.get("underfits", 0.0) >= ALARM
    early = short or unexplained or rises or bool(NEEDED & failed.keys())
    return {
        "verdict": "alarm" if entries else "too_early" if early else "healthy",
        "alarms": entries[:1],
        "alternatives": entries[1:3],
        "notes": notes(facts) + [f"{name} is silenced." for name in sorted(silenced)],
        "not_checked": [*(f"{name} ({reason[:100]})" for name, reason in failed.items()), *unknown(found)],
        "version": __version__,
    }


def entry_of(finding: Finding, facts: Facts, found: dict[str, float]) -> dict[str, Any]:
    """Return an alarm."""
    says, why, change = (text.format_map(_words(facts)) for text in MESSAGES[finding.cause])
    option, _, value = change.removeprefix("--").partition(" ")
    name = option.rpartition(".")[2]
    if option.startswith("model.optimizer.") and name in facts.get("set_by_groups", ()):
        change = f"Set {change}, and change {name} alike in --model.param_groups, where groups set their own."
    shown = [RANGES[name] for name in finding.shown_by if name != "second_half"]  # which only says when it is judged
    measured = facts | training_facts(facts)
    return {
        "cause": finding.cause,
        "family": CAUSES[finding.cause].family,
        "confidence": finding.confidence,
        "says": says,
        "why": why,
        "evidence": {each.fact: measured[each.fact] for each in shown},
        "healthy": {each.fact: f"{healthy(each)}: {each.reason}" for each in shown},
        "remedy": {"option": option, "value": value} if change.startswith("--") else {"text": change},
        "now": facts.get(name) if change.startswith("--") else None,
        "ruled_out": ruled_out(finding.cause, found),
        "tried": None,
    }


class _Words(dict[str, Any]):
    """Facts as they are named in messages."""

    def __missing__(self, name: str) -> "_Unknown":
        return _Unknown(f"an unknown {name}")


class _Unknown(str):
    """A word instead of a number that was not measured."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self)


def _words(facts: Facts) -> dict[str, Any]:
    words = _Words(facts | training_facts(facts))
    words |= {key: ", ".join(map(str, value[:3])) for key, value in words.items() if isinstance(value, list)}
    lr, factor = facts.get("lr") or 0.0, facts.get("repair_factor")
    update = max(facts.get("update_ratio") or 1e-3, 1e-9)
    to_usual = 10 ** math.floor(math.log10(USUAL_UPDATE / update))
    if factor:
        why = f"The loss of {facts['trial_images']} images does not fall; with {factor:.3g} times this rate, it does."
    elif "update_ratio" in facts:
        why = f"A step changes weights by {update:.1g} of their size; 0.001 to 0.02 is usual."
    else:
        why = f"The loss rises to {facts.get('loss_peak', 0.0):.0f} times that of guessing."
    words["lr_why"] = why
    words["lower_lr"] = lr * (factor or min(to_usual, 0.1))
    # the trial with this factor amounts to the whole training
    words["higher_lr"] = lr * (max(factor / 3, 3) if factor else min(max(to_usual, 10), 1e4))
    words["momentum_option"] = "optimizer.betas [0.9,0.999]" if facts.get("has_betas") else "optimizer.momentum 0.9"
    if facts.get("cycles_momentum"):
        words["momentum_option"] = "lr_scheduler.max_momentum 0.95"
    words["clip"] = facts.get("grad_norm_p90") or 1.0
    words["loose_clip"] = max(words["clip"], 1.0)  # gradients are larger once something is learned
    words["averaged"] = 1 / max(1 - (facts.get("momentum") or 0.0), 1e-9)
    rules = [
        f'{{method: kaiming_normal, layer: {each}, pattern: "*weight", arguments: {{nonlinearity: relu}}}}'
        for each in facts.get("layer_types") or ("Conv2d", "Linear")
    ]
    words["init_why"] = "The first loss is far above that of guessing, although the inputs are normalised."
    if (dead := facts.get("dead_at_start", 0.0)) > 0.5:
        words["init_why"] = f"{dead:.0%} of the units are 0 for all images before training, and get no gradient."
        rules.append('{method: constant, pattern: "*bias", arguments: {val: 0}}')
    words["initializers"] = f"[{', '.join(rules)}]"
    return words


def healthy(limits: Range) -> str:
    """Return the healthy range of a fact in words."""
    return f"at {'most' if limits.healthy < limits.sick else 'least'} {limits.healthy:g}"


def notes(facts: Facts) -> list[str]:
    """Return what is worth knowing, but no alarm."""
    lines = []
    if (images := facts.get("val_images")) and 98 / images**0.5 > 3:
        points = f"{98 / images**0.5:.0f}"
        lines.append(
            f"{images} validation images: accuracy is known to within {points} points of 100; see --data.folds."
        )
    if facts.get("linear_z", 9.0) < 3:
        lines.append("A linear classifier learns nothing from 8x8 pixels: check that labels belong to their images.")
    if facts.get("unused_names"):
        lines.append(f"Layers that forward does not use: {', '.join(facts['unused_names'][:3])}.")
    if facts.get("end_of_peak", 0.0) > 0.5 and facts.get("planned_steps", 0) > 100:
        ends = f"The learning rate ends at {facts['end_of_peak']:.0%} of its peak"
        lines.append(f"{ends}; a schedule that falls to 0 usually gives better results.")
    if too_short(facts):
        epochs = 2 * len(facts["val_accs"])
        lines.append(f"val/acc still rises: training may be too short; try --trainer.max_epochs {epochs}.")
    return lines


def too_short(facts: Facts) -> bool:
    """Return whether accuracy rose by more than its noise in the last quarter of all epochs."""
    accs = facts.get("val_accs") or []
    before = accs[: -max(len(accs) // 4, 1)]
    noise = 1 / (facts.get("val_images") or 1000) ** 0.5
    return bool(before) and len(accs) == facts.get("planned_epochs") and accs[-1] - max(before) > 2 * noise


def terminal(result: dict[str, Any]) -> list[str]:
    """Return at most 15 lines about a result."""
    lines = []
    for alarm in result["alarms"]:
        remedy = alarm["remedy"]
        change = remedy.get("text") or f"--{remedy['option']} {_quoted(remedy['value'])}"
        numbers = [
            f"{name} {_number(value)}, healthy {alarm['healthy'][name]}" for name, value in alarm["evidence"].items()
        ]
        if alarm["now"] is not None:
            numbers.insert(0, f"--{remedy['option']} {alarm['now']:g}")
        lines += [
            f"Alarm ({alarm['confidence']}): {alarm['cause']}",
            f"  {alarm['says']}",
            *(f"  Found      {each}" for each in numbers),
            f"  Why        {alarm['why']}",
            f"  Change     {change}",
            *([f"  Ruled out  {', '.join(alarm['ruled_out'][:6])}"] if alarm["ruled_out"] else []),
            f"  If it is intended: --silence {alarm['cause']}",
        ]
    if not lines:
        checked = len(CAUSES.keys() - {*result["not_checked"]})
        lines.append(HEALTHY.format(checked) if result["verdict"] == "healthy" else TOO_EARLY)
    for other in result["alternatives"]:
        lines.append(f"Or ({other['confidence']}): {other['cause']}. {other['says']}")
    if not result["alarms"]:  # most others are consequences
        lines += [f"Note: {note}" for note in result["notes"][:3]]
    first, more = result["not_checked"][:5], len(result["not_checked"]) - 5
    lines.append(f"Not checked: {', '.join(first)}{f', and {more} more' if more > 0 else ''}.")
    return lines


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value else value
