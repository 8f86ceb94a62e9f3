"""Evaluate a network on fixed images of train and val, each time with one thing changed, and observe its layers."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from callbacks.tools.facts import Facts, confusion, confusion_facts
from callbacks.tools.layers import find_layers, forward, hooked
from callbacks.tools.outputs import Outputs

WEIGHTS = (nn.modules.conv._ConvNd, nn.Linear)
BEYOND = 5  # inputs beyond which sigmoid and tanh are saturated
SATURATED = {"sigmoid": (1 / (1 + math.exp(BEYOND)), 1 / (1 + math.exp(-BEYOND)))}
SATURATED["tanh"] = (-math.tanh(BEYOND), math.tanh(BEYOND))
SAME = 1e-3  # relative difference of outputs that rounding may cause
LEAST = 10  # wrong predictions from which their confidence is known


def probe(trainer: Trainer, pl_module: LightningModule, count: int) -> Facts:
    """Return what the module, in eval mode, makes of up to ``count`` images of train and of val.

    Needs the loaders of this project; facts about accuracies need a module that classifies.
    """
    train, val = (
        each[0] if isinstance(each, list) else each for each in (trainer.train_dataloader, trainer.val_dataloaders)
    )
    if not all(hasattr(loader, "render") for loader in (train, val)):
        return {}
    seen = images_of(train, val, count, trainer.current_epoch)
    images, targets = seen["plain"]
    logits, facts = observe(trainer, pl_module, images, train.batch_size)
    facts |= {"probe_images": len(images), "val_images": len(val.dataset)}
    names = getattr(pl_module, "class_names", None) or []
    if logits.shape != (len(images), len(names)) or not hasattr(pl_module, "image_losses"):
        return facts

    def outputs(images: Tensor) -> Tensor:
        parts = images.tensor_split(math.ceil(len(images) / train.batch_size))
        return torch.cat([forward(trainer, pl_module, part) for part in parts]).float()

    right = logits.argmax(1) == targets
    confidence = logits.softmax(1).amax(1)
    facts |= {"classes": len(names), "plain_acc": float(right.float().mean())}
    for name, chosen in (("right", right), ("wrong", ~right)):
        if chosen.sum() >= LEAST:
            facts[f"{name}_confidence"] = float(confidence[chosen].mean())
    facts |= confusion_facts(confusion(targets, logits.argmax(1), len(names)), names, "train")
    shares = torch.bincount(val.dataset.targets, minlength=len(names)).to(logits).clamp_min(1e-6)
    constant = (shares / shares.sum()).log().expand_as(logits)  # the best outputs of a network that ignores images
    losses: Any = pl_module.image_losses  # of ImageClassifier
    for name, values in (("plain", logits), ("prior", constant)):
        if (of_images := losses(values, targets)) is not None:
            facts[f"{name}_loss"] = float(of_images.mean())
    facts["eval_transform_acc"] = facts["plain_acc"]
    if not torch.equal(images, seen["eval_transform"][0]):
        facts["eval_transform_acc"] = accuracy(outputs(seen["eval_transform"][0]), targets)
    images, targets = seen["val"]
    if not seen["train_transform_val"][1].is_floating_point():  # mixed images have no class
        facts["train_transform_val_acc"] = accuracy(outputs(seen["train_transform_val"][0]), targets)
    norms = [each for each in pl_module.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    averaged = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]  # set elsewhere in Lightning
    if (
        norms and not averaged and not any(isinstance(each, nn.SyncBatchNorm) for each in norms)
    ):  # which waits for ranks
        with batch_statistics(norms):
            facts["batch_stat_acc"] = accuracy(outputs(images), targets)
    few = images[: train.batch_size]
    facts["eval_differs"] = float(difference(outputs(few), outputs(few.flip(0)).flip(0)) > SAME)
    return facts


def setting_facts(trainer: Trainer, pl_module: LightningModule) -> Facts:
    """Return what network, optimizer and training data are like."""
    layers, loader = find_layers(pl_module, types=WEIGHTS), trainer.train_dataloader
    rates = [each.p for each in pl_module.modules() if isinstance(each, _DropoutNd)]
    facts: Facts = {"layers": len(layers), "dropout_rate": max(rates, default=None)}
    if layers:
        facts["weight_eps"] = torch.finfo(next(iter(layers.values())).weight.dtype).eps
    if len(trainer.optimizers) == 1:
        facts["optimizer"] = type(trainer.optimizers[0]).__name__
    if hasattr(loader, "render"):
        counts = torch.bincount(loader.dataset.targets)
        weighted = loader.balanced or getattr(pl_module, "unweighted_loss", None) is not None
        facts["imbalance"] = 1.0 if weighted else float(counts.max() / counts[counts > 0].min())
    return facts


def images_of(train: Any, val: Any, count: int, epoch: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images and targets: of train, plain and as val treats them; of val, and as train treats them."""
    plain = copy.copy(train)
    plain.transform = type(train.transform)([], train.transform.normalize)
    of_train, of_val = copy.copy(val.dataset), copy.copy(val.dataset)
    of_train.load, of_train.targets, of_val.transform = (
        train.dataset.load,
        train.dataset.targets,
        train.dataset.transform,
    )
    views = {
        # with transforms of single images only if val has some, because a Normalize may be among them
        "plain": (plain, of_train if val.dataset.transform is None else train.dataset),
        "eval_transform": (val, of_train),
        "val": (val, val.dataset),
        "train_transform_val": (train, of_val),
    }
    seen = {}
    for name, (loader, dataset) in views.items():
        view = copy.copy(loader)
        view.dataset = dataset
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        images, targets = view.render(order[:count], epoch)
        seen[name] = images[:, 0] if images.ndim == 5 else images, targets  # the first of several views of an image
    return seen


def observe(trainer: Trainer, pl_module: LightningModule, images: Tensor, size: int) -> tuple[Tensor, Facts]:
    """Return the outputs for images, and of which layers the most channels are always 0, or saturated."""
    outputs: list[Tensor] = []
    largest: dict[str, Tensor] = {}
    saturated: dict[str, Tensor] = {}

    def of_activation(function: str, output: Tensor) -> tuple[Tensor, Tensor | None]:
        low, high = SATURATED.get(function, (None, None))
        share = None if low is None else ((output < low) | (output > high)).float().mean()
        return output.detach().abs().transpose(0, 1).flatten(1).amax(1), share

    layers = find_layers(pl_module, types=WEIGHTS)
    for part in images.tensor_split(math.ceil(len(images) / size)):
        record = Outputs(lambda output: None, of_activation)
        with hooked(layers, record.keep), record:
            outputs.append(forward(trainer, pl_module, part))
        for name, (channels, share) in record.after.items():
            largest[name] = torch.maximum(largest.get(name, channels), channels)
            if share is not None:
                saturated[name] = saturated.get(name, 0) + share * len(part) / len(images)
    facts: Facts = {}
    dead = {name: (channels == 0).float().mean() for name, channels in largest.items()}
    for kind, shares in (("dead", dead), ("saturated", saturated)):
        if shares:
            values = torch.stack([*shares.values()]).tolist()
            facts[f"{kind}_share"], facts[f"{kind}_layer"] = max(zip(values, shares, strict=True))
    return torch.cat(outputs).float(), facts


@contextmanager
def batch_statistics(norms: list[Any]) -> Iterator[None]:
    """Let batch norms use the statistics of each batch without tracking them."""
    for each in norms:
        each.training, each.track_running_stats = True, False
    try:
        yield
    finally:
        for each in norms:
            each.training, each.track_running_stats = False, True


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """Return the share of right predictions."""
    return float((logits.argmax(1) == targets).float().mean())


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest difference of outputs, relative to what distinguishes images."""
    scale = (first - first.mean(0)).abs().max().clamp_min(1e-12)
    return float((first - second).abs().max() / scale)
