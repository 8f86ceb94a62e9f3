"""Facts about a training, computed from what its callbacks collect: plain numbers, names and texts."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from callbacks.tools.layers import network_of

Facts = dict[str, Any]
BEFORE = 20  # losses with whose median a loss is compared
LEAST = 10  # images of a class whose confusions count


def series_facts(losses: Sequence[float], norms: Sequence[float], clip: float | None) -> Facts:
    """Return facts about the losses of successive steps, and their gradient norms before clipping to ``clip``."""
    facts: Facts = {}
    ordered = sorted(filter(math.isfinite, norms))
    for name, share in {"median": 0.5, "p90": 0.9, "p99": 0.99}.items() if ordered else ():
        facts[f"grad_norm_{name}"] = ordered[int(share * len(ordered))]
    if clip and ordered:
        facts |= {"gradient_clip_val": clip, "clipped_share": sum(norm > clip for norm in ordered) / len(ordered)}
    losses = [*filter(math.isfinite, losses)]
    if len(losses) > BEFORE:
        usual = statistics.median(losses)  # a loss that doubles below it is no jump
        pairs = ((losses[i], statistics.median(losses[i - BEFORE : i])) for i in range(BEFORE, len(losses)))
        facts["loss_jump_share"] = sum(loss > max(2 * before, usual) for loss, before in pairs) / (len(losses) - BEFORE)
    return facts


def step_facts(step: Any) -> Facts:
    """Return how far a step, a ``callbacks.base.steps.Step``, moved the weights of the layers."""
    ratios = {name.removesuffix(".weight"): step.update_ratio(name) for name in step.layers}
    ratios = {name: ratio for name, ratio in ratios.items() if math.isfinite(ratio)}
    if not ratios:
        return {}
    median = statistics.median(ratios.values())
    facts: Facts = {"update_ratio": median}
    if first := [*ratios.values()][: len(ratios) // 3]:
        facts["update_ratio_first"] = statistics.median(first) / max(median, 1e-30)
    gradients, updates = step.gradients(), step.updates()
    still = sum(max(updates[name].zeros - each.zeros, 0) for name, each in gradients.items())
    moving = sum(each.num - each.zeros for each in gradients.values())
    return facts | {"unchanged_share": still / max(moving, 1)}


def shrink(start: dict[str, float], module: nn.Module) -> float | None:
    """Return the median over layers of the norm of their weights relative to that at the start."""
    ratios = [norm / start[name] for name, norm in norms_of(module).items() if start.get(name)]
    return statistics.median(ratios) if ratios else None


def norms_of(module: nn.Module) -> dict[str, float]:
    """Return the norms of the layers' weights."""
    norms = {name: each.norm() for name, each in network_of(module).named_parameters() if each.ndim > 1}
    return dict(zip(norms, torch.stack([*norms.values()]).tolist(), strict=True)) if norms else {}


def confusion(targets: Tensor, preds: Tensor, classes: int) -> Tensor:
    """Return the number of images of each true class (row) and predicted class (column), int64, on the CPU."""
    return torch.bincount(targets * classes + preds, minlength=classes**2).view(classes, classes).cpu()


def val_facts(targets: Tensor, preds: Tensor, names: Sequence[str], train_targets: Tensor | None) -> Facts:
    """Return facts about the predictions for val, given the classes of the training images, if they are known."""
    counts = confusion(targets, preds, len(names))
    if (counts.sum(1) > 0).sum() < 2:  # limit_val_batches may leave one class
        return {}
    of_class, right = counts.sum(1), counts.diagonal()
    recall = right / of_class.clamp_min(1)
    facts: Facts = {
        "val_acc": int(right.sum()) / len(targets),
        "permuted_acc": permuted(counts) / len(targets),
        "balanced_acc": float(recall[of_class > 0].mean()),
        "chance": int(of_class.max()) / len(targets),
        "probe_val_images": len(targets),
    }
    if train_targets is not None:
        trained = torch.bincount(train_targets.cpu(), minlength=len(names))
        common, rare = trained >= trained.max() / 2, trained < trained.max() / 10
        common, rare = common & (of_class > 0), rare & (of_class > 0)
        if common.any() and rare.any():
            facts["rare_gap"] = float(recall[common].mean() - recall[rare].mean())
    return facts | confusion_facts(counts, names, "val")


def confusion_facts(counts: Tensor, names: Sequence[str], split: str) -> Facts:
    """Return the two classes that are most often taken for each other, and the one that is most often for another."""
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    shares[counts.sum(1) < LEAST] = 0
    shares.fill_diagonal_(0)
    facts: Facts = {}
    for kind, values, of_pair in (("swapped", torch.minimum(shares, shares.T), "val"), ("polluted", shares, "train")):
        facts[f"{kind}_share_{split}"] = float(values.max())
        if split == of_pair:
            facts[f"{kind}_pair"] = " and ".join(names[place] for place in divmod(int(values.argmax()), len(names)))
    return facts


def permuted(counts: Tensor) -> int:
    """Return how many predictions are right after renaming the classes, the most frequent pairs first."""
    counts, right = counts.clone(), 0
    for _ in range(len(counts)):
        place = int(counts.argmax())
        right += int(counts.flatten()[place])
        counts[place // len(counts)], counts[:, place % len(counts)] = -1, -1
    return right


def known(facts: Facts) -> Facts:
    """Return the facts without None and NaN."""
    return {key: value for key, value in facts.items() if value is not None and value == value}
