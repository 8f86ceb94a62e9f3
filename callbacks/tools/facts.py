"""Facts about a training, computed from what its callbacks collect: plain numbers, names and texts."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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


def confusion(targets: Tensor, preds: Tensor, classes: int) -> Tensor:
    """Return the number of images of each true class (row) and predicted class (column), int64, on the CPU."""
    return torch.bincount(targets * classes + preds, minlength=classes**2).view(classes, classes).cpu()


def recall_facts(counts: Tensor, train_counts: Tensor) -> Facts:
    """Return facts about the confusion matrix of val, and about the numbers of training images of each class."""
    present = counts.sum(1) > 0
    recall = counts.diagonal() / counts.sum(1).clamp_min(1)
    facts: Facts = {
        "permuted_acc": permuted(counts) / int(counts.sum()),
        "balanced_acc": float(recall[present].mean()),
        "chance": float(counts.sum(1).max() / counts.sum()),
    }
    common, rare = train_counts >= train_counts.max() / 2, train_counts < train_counts.max() / 10
    if (rare & present).any() and (common & present).any():
        facts["rare_gap"] = float(recall[common & present].mean() - recall[rare & present].mean())
    return facts


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
