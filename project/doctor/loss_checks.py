"""Facts about a classifier's loss and outputs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from project.doctor.network_checks import use_batch_statistics
from project.doctor.symptoms import Facts

REPEATS, MOST = 8, 1024  # targets of each class, and of all
MARGINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # logit of the true class above the others


@torch.no_grad()
def loss_facts(loss: Any, classes: int, device: Any) -> Facts:
    """Return what a loss of logits and classes gives for right, wrong, equal and bounded logits."""
    targets = torch.arange(min(REPEATS * classes, MOST), device=device) % classes
    right = F.one_hot(targets, classes).float()

    def of(logits: Tensor) -> float:
        return float(loss(logits, targets))

    # of the best constant output: losses of one output per class are lower if all are negative
    equal = min(of(right * 0 - margin) for margin in (0.0, *MARGINS))
    # also with negative logits of wrong classes, for losses of one output per class
    best = min(equal, *(of(margin * each) for margin in MARGINS for each in (right, right - 0.5)))
    once, twice = of(right * 0), float(loss((right * 0).repeat(2, 1), targets.repeat(2)))
    surer, surest = (of(margin * (right - 0.5)) for margin in MARGINS[-2:])
    scale = max(abs(equal), 1e-12)
    return {
        "prior_loss": equal,
        "loss_range": (equal - best) / scale,  # the part of the loss that training can remove
        "truth_gain": (of(4 * right.roll(1, 1)) - of(4 * right)) / scale,  # positive if the true class is rewarded
        "simplex_floor": of(right) / scale,  # of outputs that are already probabilities
        # of very sure and right outputs; smoothing punishes the surest
        "sure_floor": surest / scale if abs(surest - surer) < 1e-3 * scale else 0.0,
        "loss_of_twice_the_batch": twice / once if abs(once) > 1e-12 else 1.0,
    }


@torch.no_grad()
def output_facts(module: Any, warm: Any, images: Tensor, targets: Tensor) -> Facts:
    """Return what a classifier's outputs look like, before training and after a few steps."""
    for each in (module, warm):
        use_batch_statistics(each)
    first, later = module(images.clone()).float(), warm(images.clone()).float()
    low, high = (float(each) for each in torch.cat([first, later]).aminmax())
    return {
        "unit_interval": float(low >= 0 and high <= 1),
        "rectified": float((later == 0).float().mean()) if low == 0 and float(later.max()) > 0 else 0.0,
        "first_loss_excess": float(F.cross_entropy(first, targets)) - float(torch.tensor(first.shape[1]).log()),
    }
