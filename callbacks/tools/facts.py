"""Facts about a training, computed from what its callbacks collect: plain numbers, names and texts."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Facts = dict[str, Any]
BEFORE = 20  # losses with whose median a loss is compared
SKIPS = 40  # first norms, of 200 steps, in which the gradient scaler of fp16 searches its scale
RENAMED = 5  # classes from which renaming them at random says something


def series_facts(losses: Sequence[float], norms: Sequence[float], clip: float | None, is_scaled: bool = False) -> Facts:
    """Return facts about the losses of successive steps, and some of their gradient norms before clipping to ``clip``.

    If ``is_scaled``, infinite norms are of steps that the gradient scaler of fp16 skips.
    """
    facts: Facts = {}
    if is_scaled and len(late := norms[SKIPS:]) >= SKIPS:
        facts["scaler_skip_share"] = sum(not math.isfinite(norm) for norm in late) / len(late)
    ordered = sorted(filter(math.isfinite, norms))
    for name, share in {"median": 0.5, "p90": 0.9, "p99": 0.99}.items() if ordered else ():
        facts[f"grad_norm_{name}"] = ordered[int(share * len(ordered))]
    if clip and ordered:
        facts["clipped_share"] = sum(norm > clip for norm in ordered) / len(ordered)
    losses = [*filter(math.isfinite, losses)]
    if len(losses) > BEFORE:
        usual = statistics.median(losses)  # a loss that doubles below it is no jump
        pairs = ((losses[i], statistics.median(losses[i - BEFORE : i])) for i in range(BEFORE, len(losses)))
        facts["loss_jump_share"] = sum(loss > max(2 * before, usual) for loss, before in pairs) / (len(losses) - BEFORE)
    return facts


def step_facts(step: Any) -> Facts:
    """Return how far a step, a ``callbacks.base.steps.Step``, moved the weights, and those of the median layer."""
    gradients, updates = step.gradients(), step.updates()
    moved = sum(each.sum_squares for each in updates.values()) ** 0.5
    ratios = [ratio for ratio in map(step.update_ratio, step.layers) if math.isfinite(ratio)]
    if not ratios:
        return {"moved": moved}
    still = sum(max(updates[name].zeros - each.zeros, 0) for name, each in gradients.items())
    moving = sum(each.num - each.zeros for each in gradients.values())
    return {"moved": moved, "update_ratio": statistics.median(ratios), "unchanged_share": still / max(moving, 1)}


def val_facts(targets: Tensor, preds: Tensor, names: Sequence[str], train_targets: Any) -> Facts:
    """Return facts about the predictions for val, given the classes of the training images, if they are known."""
    if targets.ndim > 1 or targets.is_floating_point() or targets.min() < 0:
        return {}  # no classes
    # images of each true class (row) and predicted class (column)
    counts = torch.bincount(targets * len(names) + preds, minlength=len(names) ** 2).view(-1, len(names)).cpu()
    if (counts.sum(1) > 0).sum() < 2:  # limit_val_batches may leave one class
        return {}
    of_class, right = counts.sum(1), counts.diagonal()
    facts: Facts = {
        "val_acc": int(right.sum()) / len(targets),
        "permuted_acc": permuted(counts) / len(targets),
        "chance": int(of_class.max()) / len(targets),
        "chance_z": chance_z(counts),
        "classes": len(names),
        "probe_val_images": len(targets),
    }
    if isinstance(train_targets, Tensor):
        trained, recall = torch.bincount(train_targets.cpu(), minlength=len(names)), right / of_class
        gap = recall[trained >= trained.max() / 2].nanmean() - recall[trained < trained.max() / 10].nanmean()
        facts["rare_gap"] = float(gap)  # NaN without rare classes
        facts |= moved_facts(counts, trained, names)
    return facts | swapped_facts(counts, names)


def chance_z(counts: Tensor) -> float:
    """Return by how many deviations a confusion matrix has more right answers than by chance.

    Images of a class are often confused with one other. With five classes or more, it is therefore also compared with
    renaming the predicted classes at random, whose variance is that of Hoeffding (1951).
    """
    counts, right, images = counts.double(), float(counts.trace()), int(counts.sum())
    chance = float(counts.sum(1).max()) / images
    z = (right - chance * images) / max(images * chance * (1 - chance), 1e-9) ** 0.5
    if len(counts) < RENAMED:
        return z
    centred = counts - counts.mean(0) - counts.mean(1, keepdim=True) + counts.mean()
    deviation = float(centred.square().sum() / (len(counts) - 1)) ** 0.5
    return min(z, (right - images / len(counts)) / max(deviation, 1e-9))


def swapped_facts(counts: Tensor, names: Sequence[str]) -> Facts:
    """Return by how many deviations two classes are predicted more often for each other than for themselves.

    The deviations are relative to the largest that so many pairs have by chance.
    """
    right = counts.diagonal()[:, None]
    excess, images = (counts - right).double(), (counts + right).clamp_min(1).double()  # each pair, in one way
    is_mutual = torch.minimum(excess / images.sqrt(), (excess / images.sqrt()).T) > 1
    both = torch.where(is_mutual, (excess + excess.T) / (images + images.T).sqrt(), 0.0)
    pair = divmod(int((both if both.any() else excess).argmax()), len(names))
    pairs = len(names) * (len(names) - 1) / 2
    by_chance = max(2 * math.log(pairs), 1.0) ** 0.5
    return {"swapped_z": float(both.max()) / by_chance, "swapped_pair": " and ".join(names[place] for place in pair)}


def moved_facts(counts: Tensor, trained: Tensor, names: Sequence[str]) -> Facts:
    """Return whether one class of train has fewer images than on val, and one more, and how often they are confused.

    The sizes are compared in deviations; those of all other classes must differ by less than half of it.
    """
    sizes = torch.stack([trained, counts.sum(1)]).double()
    images, share = sizes.sum(1), sizes.sum(0) / sizes.sum()
    deviation = (share * (1 - share) * (1 / images).sum()).sqrt().clamp_min(1e-9)
    z = (sizes[0] / images[0] - sizes[1] / images[1]) / deviation
    less, more = int(z.argmin()), int(z.argmax())
    if len(names) < 3:  # then, one class has more if the other has less
        return {}
    others = [abs(float(each)) for place, each in enumerate(z) if place not in (less, more)]
    clear = min(float(z[more]), -float(z[less])) > 2 * max(others, default=math.inf)
    return {
        "moved_z": float(z[more] - z[less]) / 2**0.5 if clear else 0.0,
        "moved_share": int(counts[less, more]) / max(int(counts[less].sum()), 1),
        "moved_pair": f"{names[less]} and {names[more]}",
    }


def permuted(counts: Tensor) -> int:
    """Return how many predictions are right after renaming the classes, the most frequent pairs first."""
    right, used = 0, (set[int](), set[int]())
    cells = counts.nonzero()
    for true, predicted in cells[counts[*cells.T].argsort(descending=True, stable=True)].tolist():
        if true not in used[0] and predicted not in used[1]:
            right += int(counts[true, predicted])
            used[0].add(true)
            used[1].add(predicted)
    return right
