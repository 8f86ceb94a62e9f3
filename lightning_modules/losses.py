"""Adapt torch's losses to classification: convert logits and targets to the form that each loss expects."""

import copy
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from jsonargparse import add_instantiator
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

Loss = TypeVar("Loss")
Inputs = Literal["logits", "softmax", "log_softmax", "sigmoid"]
Targets = Literal["classes", "one_hot", "signs", "label_lists"]

TORCH_LOSSES: dict[type[nn.Module], tuple[Inputs, Targets]] = {
    nn.MultiMarginLoss: ("logits", "classes"),
    nn.NLLLoss: ("log_softmax", "classes"),
    nn.KLDivLoss: ("log_softmax", "one_hot"),
    nn.L1Loss: ("softmax", "one_hot"),
    nn.MSELoss: ("softmax", "one_hot"),
    nn.SmoothL1Loss: ("softmax", "one_hot"),
    nn.HuberLoss: ("softmax", "one_hot"),
    nn.PoissonNLLLoss: ("logits", "one_hot"),
    nn.BCELoss: ("sigmoid", "one_hot"),
    nn.BCEWithLogitsLoss: ("logits", "one_hot"),
    nn.MultiLabelSoftMarginLoss: ("logits", "one_hot"),
    nn.SoftMarginLoss: ("logits", "signs"),
    nn.MultiLabelMarginLoss: ("logits", "label_lists"),
}
WEIGHTED_LOSSES = (
    *(nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss),
    *(nn.BCELoss, nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss),
)
WEIGHTS = ("weight", "pos_weight")  # arguments of torch's losses with one number per class


def _with_tensors(class_type: type[Loss], *args: Any, **kwargs: Any) -> Loss:
    """Create a loss of torch, with lists of numbers converted to tensors."""
    return class_type(*args, **{key: torch.tensor(v) if isinstance(v, list) else v for key, v in kwargs.items()})


# In a config, weights are lists of numbers, because jsonargparse accepts a Tensor only as the path of a function.
for _loss in WEIGHTED_LOSSES:
    _types = _loss.__init__.__annotations__
    _types |= {name: list[float] | Tensor | None for name in WEIGHTS if name in _types}
    add_instantiator(_with_tensors, _loss)


class ClassificationLoss(nn.Module):
    """Wrap a loss so that it accepts logits and classes.

    Called with logits, float ``(N, C)``, and targets, int64 ``(N,)`` or, for mixed images, float ``(N, C)`` from 0 to
    1. ``weight`` and ``reduction`` are those of the loss. A ``weight`` ``(C,)`` weights images by their class in
    ``CrossEntropyLoss``, ``NLLLoss`` and ``MultiMarginLoss``, and the binary problem of each class in ``BCELoss``,
    ``BCEWithLogitsLoss`` and ``MultiLabelSoftMarginLoss``; no other loss of torch has it.

    Args:
        loss: Called with inputs and targets.
        inputs: Its inputs: the logits, or their softmax, log-softmax or sigmoid, ``(N, C)``.
        targets: Its targets: "classes", unchanged, ``(N,)``; "one_hot", 0 and 1, ``(N, C)``; "signs", -1 and 1,
            ``(N, C)``; "label_lists", the class followed by -1 in each row, ``(N, C)``.

    Raises:
        MisconfigurationException: The loss is not reduced to a scalar, or gets mixed images although it needs classes.
    """

    def __init__(self, loss: nn.Module, inputs: Inputs = "logits", targets: Targets = "classes") -> None:
        super().__init__()
        check_reduction(loss)
        self.loss = loss
        self.inputs = inputs
        self.targets = targets

    @property
    def weight(self) -> Tensor | None:
        """Weight of each class, if the loss has weights."""
        return self.loss.weight  # type: ignore[return-value]  # without it, AttributeError, which hasattr expects

    @weight.setter
    def weight(self, weight: Tensor | None) -> None:
        self.loss.weight = weight  # type: ignore[assignment]  # mypy does not expect a buffer to be None

    @property
    def reduction(self) -> str:
        """Reduction of the loss: "mean" or "sum"."""
        return getattr(self.loss, "reduction", "mean")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar."""
        device = logits.device.type
        if torch.is_autocast_enabled(device):
            logits = logits.float()
        with torch.autocast(device, enabled=False):  # BCELoss does not support it on a GPU
            return self.loss(self._inputs(logits), self._targets(targets, logits))

    def _inputs(self, logits: Tensor) -> Tensor:
        if self.inputs == "softmax":
            return logits.softmax(1)
        if self.inputs == "log_softmax":
            return logits.log_softmax(1)
        return logits.sigmoid() if self.inputs == "sigmoid" else logits

    def _targets(self, targets: Tensor, logits: Tensor) -> Tensor:
        if targets.is_floating_point():
            if self.targets != "one_hot" and not isinstance(self.loss, nn.CrossEntropyLoss):
                raise MisconfigurationException(
                    f"Expected targets of one class for {type(self.loss).__name__}, but got mixed ones "
                    f"{tuple(targets.shape)}. Remove MixUp and CutMix from --data.batch_transforms, or train with "
                    "torch.nn.CrossEntropyLoss."
                )
            return targets.to(logits.dtype)
        if self.targets == "classes":
            return targets
        num_classes = logits.shape[1]
        if self.targets == "label_lists":
            return F.pad(targets[:, None], (0, num_classes - 1), value=-1)
        one_hot = F.one_hot(targets, num_classes).to(logits.dtype)
        return 2 * one_hot - 1 if self.targets == "signs" else one_hot


def for_classes(loss: nn.Module, num_classes: int | None = None) -> nn.Module:
    """Return a loss that accepts logits and classes: torch's losses in ``ClassificationLoss``, others unchanged.

    Cross-entropy is also unchanged, because it already accepts logits and classes.

    Raises:
        MisconfigurationException: It is a loss of torch that is not for classes, is not reduced to a scalar, or has
            weights for another number of classes.
    """
    check_reduction(loss)
    for option in WEIGHTS:
        weight = getattr(getattr(loss, "loss", loss), option, None)
        if isinstance(weight, Tensor) and weight.ndim == 1 and len(weight) not in (1, num_classes or len(weight)):
            raise MisconfigurationException(
                f"Expected {num_classes} weights, one per class, for --model.loss.{option}, but got {len(weight)}."
            )
    name = type(loss).__name__
    for cls, (inputs, targets) in TORCH_LOSSES.items():
        if isinstance(loss, cls):
            if isinstance(loss, nn.PoissonNLLLoss) and not loss.log_input:
                inputs = "softmax"  # rates cannot be negative
            if isinstance(loss, nn.KLDivLoss) and loss.log_target:
                raise MisconfigurationException(
                    "Expected KLDivLoss without log_target at --model.loss: targets are 0 and 1, and 0 has no log."
                )
            return ClassificationLoss(loss, inputs, targets)
    if type(loss).__module__ == nn.MSELoss.__module__ and not isinstance(loss, nn.CrossEntropyLoss):
        raise MisconfigurationException(
            f"Expected a loss on logits and classes at --model.loss, but got {name}. For losses on embeddings, such "
            "as TripletMarginLoss, use lightning_modules.extras.metric_learner.MetricLearner."
        )
    return loss


def balanced(loss: nn.Module, class_counts: list[int] | None) -> nn.Module:
    """Return a copy of a loss with weights inverse to the number of images of each class, 1 on average over the images.

    Raises:
        MisconfigurationException: The counts are unknown, or the loss supports no weights or has some.
    """
    if class_counts is None or not hasattr(loss, "weight") or loss.weight is not None:
        raise MisconfigurationException(
            "Expected class counts from the data, and a loss with class weights that are not set, for "
            f"--model.class_weights balanced, but got {class_counts} and {type(loss).__name__}."
        )
    loss, counts = copy.deepcopy(loss), torch.tensor(class_counts, dtype=torch.float64)
    loss.weight = (counts.sum() / (len(counts) * counts)).float()
    return loss


def check_reduction(loss: nn.Module) -> None:
    """Raise if a loss is not reduced to a scalar.

    Raises:
        MisconfigurationException: Its reduction is "none".
    """
    if getattr(loss, "reduction", "mean") == "none":
        raise MisconfigurationException(
            f"Expected reduction mean or sum for {type(loss).__name__} at --model.loss, but got none: training needs "
            "a scalar."
        )


def ignored_class(loss: nn.Module, num_classes: int) -> int | None:
    """Return the ``ignore_index`` of a loss if it is one of the classes, else None."""
    index = getattr(getattr(loss, "loss", loss), "ignore_index", None)
    return index if index is not None and 0 <= index < num_classes else None


def per_image(loss: nn.Module, value: Tensor, count: int | Tensor) -> Tensor:
    """Return the value of a loss over ``count`` images, converted to a mean for logging if it is a sum."""
    return value / count if getattr(loss, "reduction", "mean") == "sum" else value


def losses_of_images(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor | None:
    """Return the loss of each image, float ``(N,)``, or None if the loss has no ``reduction`` to disable.

    Except for class weights, their mean or sum, depending on the reduction, is the loss of the batch.
    """
    inner = getattr(loss, "loss", loss)
    if not hasattr(inner, "reduction"):
        return None
    each = copy.deepcopy(loss).float()  # a copy, because a compiled step may use the loss itself
    reduction, getattr(each, "loss", each).reduction = inner.reduction, "none"
    values = each(logits.float(), targets)
    if values.ndim == 0 or len(values) != len(targets):
        return None
    if values.ndim == 1:
        return values
    return values.flatten(1).mean(1) if reduction == "mean" else values.flatten(1).sum(1)
