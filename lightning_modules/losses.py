"""Adapt torch's losses to classification: convert logits and targets to the form that each loss expects."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from jsonargparse import add_instantiator
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

Loss = TypeVar("Loss")
Targets = Literal["classes", "one_hot", "signs", "label_lists"]
same, sigmoid = torch.positive, torch.sigmoid
softmax, log_softmax = partial(torch.softmax, dim=1), partial(torch.log_softmax, dim=1)

# how to convert the logits, and the form of the targets
TORCH_LOSSES: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Targets]] = {
    nn.MultiMarginLoss: (same, "classes"),
    nn.NLLLoss: (log_softmax, "classes"),
    nn.KLDivLoss: (log_softmax, "one_hot"),
    nn.L1Loss: (softmax, "one_hot"),
    nn.MSELoss: (softmax, "one_hot"),
    nn.SmoothL1Loss: (softmax, "one_hot"),
    nn.HuberLoss: (softmax, "one_hot"),
    nn.PoissonNLLLoss: (same, "one_hot"),
    nn.BCELoss: (sigmoid, "one_hot"),
    nn.BCEWithLogitsLoss: (same, "one_hot"),
    nn.MultiLabelSoftMarginLoss: (same, "one_hot"),
    nn.SoftMarginLoss: (same, "signs"),
    nn.MultiLabelMarginLoss: (same, "label_lists"),
}
WEIGHTS = ("weight", "pos_weight")  # arguments of torch's losses with one number per class


def _with_tensors(class_type: type[Loss], *args: Any, **kwargs: Any) -> Loss:
    """Create a loss of torch, with lists of numbers converted to tensors."""
    return class_type(*args, **{key: torch.tensor(v) if isinstance(v, list) else v for key, v in kwargs.items()})


# In a config, weights are lists of numbers, because jsonargparse accepts a Tensor only as the path of a function.
_losses: list[type[nn.Module]] = [nn.CrossEntropyLoss, *TORCH_LOSSES]
for _loss in _losses:
    _types = _loss.__init__.__annotations__
    _types |= {name: list[float] | Tensor | None for name in WEIGHTS if name in _types}
    add_instantiator(_with_tensors, _loss)


class ClassificationLoss(nn.Module):
    """Call a loss of torch with logits, float ``(N, C)``, and targets.

    Targets are int64 ``(N,)`` or, for mixed images, float ``(N, C)`` from 0 to 1. A ``weight`` ``(C,)`` weights images
    by their class in ``NLLLoss`` and ``MultiMarginLoss``, and the binary problem of each class in ``BCELoss``,
    ``BCEWithLogitsLoss`` and ``MultiLabelSoftMarginLoss``.

    Args:
        loss: One of ``TORCH_LOSSES``.

    Raises:
        MisconfigurationException: It gets mixed images although it needs classes.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        convert_logits, form = next(row for kind, row in TORCH_LOSSES.items() if isinstance(self.loss, kind))
        device = logits.device.type
        if torch.is_autocast_enabled(device):
            logits = logits.float()
        with torch.autocast(device, enabled=False):  # BCELoss does not support it on a GPU
            return self.loss(convert_logits(logits), self._convert_targets(targets, logits, form))

    def _convert_targets(self, targets: Tensor, logits: Tensor, form: Targets) -> Tensor:
        if targets.is_floating_point():
            if form != "one_hot":
                raise MisconfigurationException(
                    f"Expected one class per image for {type(self.loss).__name__}, but got mixed images. Remove MixUp "
                    "and CutMix, or train with torch.nn.CrossEntropyLoss."
                )
            return targets.to(logits.dtype)
        if form == "classes":
            return targets
        if form == "label_lists":  # the class, then -1
            return F.pad(targets[:, None], (0, logits.shape[1] - 1), value=-1)
        one_hot = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        return 2 * one_hot - 1 if form == "signs" else one_hot


def for_classes(loss: nn.Module, num_classes: int) -> nn.Module:
    """Return a loss that accepts logits and classes: most of torch in ``ClassificationLoss``, others unchanged.

    Raises:
        MisconfigurationException: A loss of torch is not for classes, or is not used as this project can.
    """
    name, of_torch = type(loss).__name__, isinstance(loss, tuple(TORCH_LOSSES))
    if type(loss).__module__ == nn.MSELoss.__module__ and not (of_torch or isinstance(loss, nn.CrossEntropyLoss)):
        raise MisconfigurationException(
            f"Expected a loss on logits and classes at --model.loss, but got {name}. Losses on embeddings are for "
            "lightning_modules.extras.metric_learner.MetricLearner."
        )
    for key, value in {"reduction": "none", "log_target": True, "log_input": False}.items():
        if getattr(loss, key, None) == value and getattr(loss, key, None) is not None:
            raise MisconfigurationException(f"Expected {name} without {key} {value} at --model.loss.")
    for option in WEIGHTS:
        weight = getattr(loss, option, None)
        if isinstance(weight, Tensor) and weight.ndim == 1 and len(weight) not in (1, num_classes):
            raise MisconfigurationException(
                f"Expected {num_classes} weights, one per class, for --model.loss.{option}, but got {len(weight)}."
            )
    return ClassificationLoss(loss) if of_torch else loss


def balanced(loss: nn.Module, class_counts: list[int] | None) -> nn.Module:
    """Return a copy of a loss with weights inverse to the images of each class, with a mean of 1 over all images."""
    loss = copy.deepcopy(loss)
    weighted = _of_torch(loss)
    if class_counts is None or getattr(weighted, "weight", "unsupported") is not None:
        raise MisconfigurationException(
            "Expected class counts from the data, and a loss with class weights that are not set, for "
            f"--model.class_weights balanced, but got {class_counts} and {type(weighted).__name__}."
        )
    counts = torch.tensor(class_counts, dtype=torch.float64)
    weighted.weight = (counts.sum() / (len(counts) * counts)).float()
    return loss


def per_image(loss: nn.Module, value: Tensor, count: int) -> Tensor:
    """Return the value of a loss over ``count`` images, converted to a mean for logging if it is a sum."""
    return value / count if getattr(_of_torch(loss), "reduction", "mean") == "sum" else value


def losses_of_images(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor | None:
    """Return the loss of each image, float ``(N,)``, or None if the loss has no ``reduction`` to disable.

    Except for class weights, their mean or sum, depending on the reduction, is the loss of the batch.
    """
    loss = copy.deepcopy(loss).float()  # a copy, because a compiled step may use the loss itself
    inner = _of_torch(loss)
    if not hasattr(inner, "reduction"):
        return None
    reduction, inner.reduction = inner.reduction, "none"
    values = loss(logits.float(), targets)
    if values.shape[:1] != targets.shape:
        return None
    values = values.flatten().unflatten(0, (len(targets), -1))
    return values.mean(1) if reduction == "mean" else values.sum(1)


def _of_torch(loss: nn.Module) -> Any:
    return loss.loss if isinstance(loss, ClassificationLoss) else loss
