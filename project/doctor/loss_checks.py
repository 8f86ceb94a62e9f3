"""Facts about a classifier's loss and outputs."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from project.doctor.network_checks import copies, loss_of, use_batch_statistics
from project.doctor.symptoms import Facts

MARGINS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # logit of the true class above the others
DRAWS = 8  # of logits and, if a training step draws numbers, of these
SOMETIMES = 0.25  # of the draws, in which a training step may leave an image out, turn it or mix it


class StepLoss:
    """The loss of a training step whose network returns chosen logits, as a function of these and of the targets.

    Args:
        module: A copy, whose network is replaced.
        images: Images of the batch; they repeat if there are more targets.

    Attributes:
        received: What the network received in the latest step.
    """

    def __init__(self, module: Any, images: Tensor) -> None:
        self.module, self.images = module, images
        self.module.network.forward = self._forward

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        self._logits, self.received = logits, list[Tensor]()
        return loss_of(self.module, self.images[rows(len(targets), self.images)], targets)

    def _forward(self, images: Tensor) -> Tensor:
        self.received.append(images)
        return self._logits[rows(len(images), self._logits)]


def rows(count: int, values: Tensor) -> Tensor:
    """Return ``count`` indices of values, which repeat if there are fewer values."""
    return torch.arange(count, device=values.device) % len(values)


def training_step_facts(module: Any, images: Tensor, targets: Tensor) -> Iterator[Facts]:
    """Yield how the loss of a classifier's training step depends on logits and targets."""
    classes = len(module.class_names)
    step = StepLoss(copies(module)[0], images)
    draws = [is_rewarded(step, targets, classes, draw) for draw in range(DRAWS)]
    if len(rewarded := [each for each in draws if each is not None]) == DRAWS:
        wrong = torch.stack(rewarded).float().mean(0) < SOMETIMES
        names = [module.class_names[each] for each in targets[wrong].unique()]
        yield {"unrewarded": float(wrong.float().mean()), "unrewarded_names": names}
    # otherwise, it depends on more, such as on a teacher or on random numbers
    is_plain = len(step.received) == 1 and is_function(step, targets, classes)
    if is_plain:
        yield {"own_decay": own_decay(step, targets, classes)}
    for each in step.module.network.parameters():
        each.detach().zero_()  # without a penalty of weights, which outputs cannot change
    yield loss_facts(step if is_plain else module.loss, targets, classes)


def is_rewarded(step: StepLoss, targets: Tensor, classes: int, draw: int) -> Tensor | None:
    """Return of which images a training step rewards the class, ``(N,)``; None if this is unknown.

    Other targets change the gradient of the logits most for the class of an image, if the loss gets all of them right.
    """
    gradients, images = list[Tensor](), step.images
    for labels in ((targets + classes // 2) % classes, targets):
        torch.manual_seed(draw)
        logits = torch.randn(len(targets), classes).to(targets.device).requires_grad_()
        loss = step(logits, labels)
        shapes = [each.shape for each in step.received[-1:]]
        if shapes != [images.shape] or not loss.isfinite() or not loss.requires_grad:
            return None
        gradients += torch.autograd.grad(loss, logits, allow_unused=True, materialize_grads=True)
    change = gradients[0] - gradients[1]
    if not change.any():  # a teacher alone
        return None
    # the image of the batch that has the largest part in a received one; several if they are alike
    sources, received = torch.cat([images, images.flip(3)]).flatten(1), step.received[-1].float().flatten(1)
    similarity = F.normalize(received) @ F.normalize(sources).T
    is_source = similarity >= similarity.amax(1, keepdim=True) - 1e-4
    is_right = change.argmax(1, keepdim=True) == targets.repeat(2)
    return (is_source & is_right).any(1) & (change.amax(1) > 1e-3 * change.amax())


@torch.no_grad()
def is_function(step: StepLoss, targets: Tensor, classes: int) -> bool:
    """Return whether the loss of a training step depends on nothing but logits and targets."""
    logits, values = torch.randn(len(targets), classes).to(targets.device), list[float]()
    for draw in range(2):
        torch.manual_seed(draw)
        values.append(float(step(logits, targets)))
        step.images = step.images.flip(0)
    return math.isclose(*values, rel_tol=1e-4)


def own_decay(step: StepLoss, targets: Tensor, classes: int) -> float:
    """Return the weight decay that a training step itself adds to the loss."""
    loss = step(torch.zeros(len(targets), classes, device=targets.device), targets)
    weights = [each for each in step.module.network.parameters() if each.requires_grad]
    if not loss.requires_grad or not weights:
        return 0.0
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    pull = sum(float((each * weight).sum()) for each, weight in zip(gradients, weights, strict=True))
    return max(pull / max(sum(float(each.square().sum()) for each in weights), 1e-12), 0.0)


@torch.no_grad()
def loss_facts(loss: Any, targets: Tensor, classes: int) -> Facts:
    """Return what a loss of logits and classes gives for right, wrong, equal and bounded logits."""
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
