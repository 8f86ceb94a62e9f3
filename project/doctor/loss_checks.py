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
    best = min(equal, *(float(loss(margin * each, targets)) for margin in MARGINS for each in (right, right - 0.5)))
    wrong = float(loss(4 * right.roll(1, 1), targets))
    once, twice = (float(loss((right * 0).repeat(n, 1), targets.repeat(n))) for n in (1, 2))
    scale = max(abs(equal), 1e-12)
    return {
        "prior_loss": equal,
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
    low, high = (float(each) for each in torch.cat([first, later]).aminmax())
    sums = float((later.sum(1) - 1).abs().max())
    return {
        "probabilities": float(low >= 0 and sums < 1e-3),
        "unit_interval": float(low >= 0 and high <= 1),
        "rectified": float((later == 0).float().mean()) if low == 0 and float(later.max()) > 0 else 0.0,
        "first_loss_excess": float(F.cross_entropy(first, targets)) - float(torch.tensor(first.shape[1]).log()),
    }
