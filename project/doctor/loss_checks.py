"""Facts about a classifier's loss and outputs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from project.doctor.network_checks import batch_statistics

Facts = dict[str, Any]
REPEATS = 8  # targets of each class
MARGINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # logit of the true class above the others


@torch.no_grad()
def loss_facts(loss: Any, classes: int, device: Any) -> Facts:
    """Return what a loss of logits and classes gives for right, wrong, equal and bounded logits."""
    targets = torch.arange(REPEATS * classes, device=device) % classes
    right = F.one_hot(targets, classes).float()
    # of the best constant output: losses of one output per class are lower if all are negative
    equal = min(float(loss(right * 0 - margin, targets)) for margin in (0.0, *MARGINS))
    # also with negative logits of wrong classes, for losses of one output per class
    best = min(float(loss(margin * each, targets)) for margin in MARGINS for each in (right, right - 0.5))
    best = min(best, equal)
    wrong = float(loss(4 * right.roll(1, 1), targets))
    zeros = torch.zeros_like(right)
    once, twice = float(loss(zeros, targets)), float(loss(zeros.repeat(2, 1), targets.repeat(2)))
    scale = max(abs(equal), 1e-12)
    return {
        "equal_loss": equal,
        "best_loss": best,
        "loss_range": (equal - best) / scale,  # the part of the loss that training can remove
        "truth_gain": (wrong - float(loss(4 * right, targets))) / scale,  # positive if the true class is rewarded
        "simplex_floor": float(loss(right, targets)) / scale,  # of outputs that are already probabilities
        "loss_of_twice_the_batch": twice / once if abs(once) > 1e-12 else 1.0,
    }


@torch.no_grad()
def output_facts(module: Any, warm: Any, images: Tensor, targets: Tensor) -> Facts:
    """Return what a classifier's outputs look like, before training and after a few steps."""
    with batch_statistics(module), batch_statistics(warm):
        first, later = module(images).float(), warm(images).float()
    both = torch.cat([first, later])
    sums = float((later.sum(1) - 1).abs().max())
    zeros = float((later == 0).float().mean())
    return {
        "probabilities": float(bool(both.min() >= 0) and sums < 1e-3),
        "unit_interval": float(bool(both.min() >= 0 and both.max() <= 1)),
        "rectified": zeros if float(both.min()) == 0 and float(later.max()) > 0 else 0.0,
        "first_loss_excess": float(F.cross_entropy(first, targets)) - float(torch.tensor(first.shape[1]).log()),
    }
