"""Rules of two published tools, written down from their sources, for the comparison in benchmark_doctor.py.

AUTOTRAINER (Zhang et al., ICSE 2021): thresholds of ``AutoTrainer/utils/monitor.py`` in its repository
shiningrain/AUTOTRAINER. Rules on gradients apply only below a required accuracy, .7 there.

SageMaker Debugger: defaults of "List of Debugger built-in rules" in its developer guide
(docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html). Simplified in its favour: losses are means of
epochs, because losses of single steps rise in every run; a unit is dead if it is silent for all probe images.
"""

import math
from itertools import pairwise
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

Facts = dict[str, Any]
EVERY = 10  # steps
FAMILIES = {  # which families of faults a rule is about
    "vanish": {"activation", "initialization"},
    "explode": {"learning_rate", "initialization", "input", "loss", "clipping"},
    "relu": {"activation", "initialization", "learning_rate"},
    "slow": {"learning_rate", "optimizer", "clipping", "schedule"},
    "unstable": {"learning_rate", "batch_size"},
    "DeadRelu": {"activation", "initialization", "learning_rate"},
    "VanishingGradient": {"activation", "initialization"},
    "ExplodingTensor": {"learning_rate", "initialization", "input", "loss", "clipping"},
    "WeightUpdateRatio": {"learning_rate", "optimizer", "clipping", "precision", "weight_decay"},
    "LossNotDecreasing": {"learning_rate", "optimizer", "clipping", "schedule", "loss"},
    "Overfit": {"overfitting"},
    "Overtraining": {"overfitting"},
    "UnchangedTensor": {"learning_rate", "precision", "wiring"},
    "ClassImbalance": {"data"},
}


class Gradients(Callback):
    """Collect what the rules need and the doctor does not: gradients of single layers every few steps."""

    def __init__(self) -> None:
        self.facts: Facts = {
            "nonfinite": False,
            "least_gradient": math.inf,
            "first_to_last": [],
            "least_update": math.inf,
        }
        self.facts |= {"first_norm": [], "zeros": [], "largest_update": 0.0}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step % EVERY:
            return
        weights = [each for each in pl_module.parameters() if each.ndim > 1 and each.grad is not None]
        if not weights:
            return
        facts, norms = self.facts, [float(each.grad.norm()) for each in weights]
        facts["nonfinite"] |= not all(map(math.isfinite, norms))
        facts["least_gradient"] = min(facts["least_gradient"], *(float(each.grad.abs().mean()) for each in weights))
        facts["first_to_last"].append(norms[0] / max(norms[-1], 1e-30))
        facts["first_norm"].append(norms[0])
        facts["zeros"].append(
            sum(int((each.grad == 0).sum()) for each in weights) / sum(each.numel() for each in weights)
        )
        self.before = [(each, each.detach().clone()) for each in weights]

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        for weight, before in self.__dict__.pop("before", []):
            ratio = float((weight.detach() - before).norm() / (before.norm() + 1e-9))
            self.facts["least_update"] = min(self.facts["least_update"], ratio)
            self.facts["largest_update"] = max(self.facts["largest_update"], ratio)


def autotrainer(facts: Facts, own: Facts) -> list[str]:
    """Return the problems that AUTOTRAINER's rules find, at any epoch after 30 % of the training."""
    losses, accs = facts.get("val_losses", []), (facts.get("train_accs", []), facts.get("val_accs", []))
    if own["nonfinite"] or any(not math.isfinite(loss) or loss >= 1e5 for loss in losses):
        return ["explode"]
    found = []
    for epoch in range(math.ceil(0.3 * len(losses)), len(losses) + 1):
        seen = [values[:epoch] for values in accs]
        slow = all(max([b - a for a, b in pairwise(v)], default=1.0) < 0.01 for v in seen)
        if slow or any(max(values, default=1.0) < 0.7 for values in seen):
            steps = slice(0, math.ceil(len(own["zeros"]) * epoch / len(losses)))
            ratios = [*zip(own["first_to_last"][steps], own["first_norm"][steps], strict=True)]
            if max(own["zeros"][steps], default=0) >= 0.7:
                found.append("relu")
            elif max(own["first_to_last"][steps], default=0) > 70:
                found.append("explode")
            elif any(ratio < 1e-3 and norm < 1e-4 for ratio, norm in ratios):
                found.append("vanish")
            elif slow:
                found.append("slow")
        elif _oscillates(seen[0]):
            found.append("unstable")
    return found[:1]


def _oscillates(accs: list[float]) -> bool:
    """Return whether at least a fifth of the epochs are peaks that are .03 above the next valley."""
    triples = [*zip(accs, accs[1:], accs[2:], strict=False)]
    peaks = [b for a, b, c in triples if b >= a and b >= c]
    valleys = [b for a, b, c in triples if b <= a and b <= c]
    return sum(peak - valley >= 0.03 for peak, valley in zip(peaks, valleys, strict=False)) >= max(0.2 * len(accs), 1)


def sagemaker(facts: Facts, own: Facts) -> list[str]:
    """Return the built-in rules of SageMaker Debugger that fire at any time."""
    train, val = facts.get("train_losses", []), facts.get("val_losses", [])
    overfit = [v - t > 0.1 * abs(t) for t, v in zip(train, val, strict=False)]
    best = min(range(len(val)), key=val.__getitem__, default=0)
    rules = {
        "DeadRelu": facts.get("dead_share", 0.0) > 0.5,
        "VanishingGradient": own["least_gradient"] < 1e-7,
        "ExplodingTensor": own["nonfinite"],
        "WeightUpdateRatio": own["largest_update"] > 10 or own["least_update"] < 1e-8,
        "LossNotDecreasing": any(b > 0.999 * a for a, b in pairwise(train)),
        "Overfit": any(a and b for a, b in pairwise(overfit)),
        "Overtraining": len(val) - 1 - best >= 10,
        "UnchangedTensor": any(abs(a - b) < 1e-5 * abs(a) for a, b in zip(train, train[2:], strict=False)),
        "ClassImbalance": facts.get("imbalance", 1.0) > 10,
    }
    return [name for name, fires in rules.items() if fires]
