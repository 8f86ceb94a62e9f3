"""Evaluate a network on fixed images of train and val, each time with one thing changed, and observe its layers."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from callbacks.tools.facts import Facts
from callbacks.tools.layers import find_layers, forward, hooked
from callbacks.tools.outputs import Outputs

WEIGHTS = (nn.modules.conv._ConvNd, nn.Linear)
BEYOND = 5  # inputs beyond which sigmoid and tanh are saturated
SATURATED = {"sigmoid": (1 / (1 + math.exp(BEYOND)), 1 / (1 + math.exp(-BEYOND)))}
SATURATED["tanh"] = (-math.tanh(BEYOND), math.tanh(BEYOND))
DIRECTIONS = 8  # in which outputs vary if no layer is much too narrow
FEW = 64  # images if they are not cached, because each is decoded


def probe(trainer: Trainer, pl_module: LightningModule, count: int) -> Facts:
    """Return what the module, in eval mode, makes of up to ``count`` images of train and of val.

    Needs the loaders of this project; facts about accuracies need a module that classifies. Of less than 4096 training
    images, an eighth is used, but at least 256.
    """
    loaders: Any = trainer.train_dataloader, trainer.val_dataloaders
    train, val = (each[0] if isinstance(each, list) else each for each in loaders)
    if not all(hasattr(loader, "render") for loader in (train, val)):
        return {}
    count = min(count, max(len(train.dataset) // 8, 256) if train.dataset.pixels is not None else FEW)
    seen = views(train, val, count, trainer.current_epoch)
    logits, targets, facts = observe(trainer, pl_module, seen["plain"]())
    facts |= {"probe_epoch": trainer.current_epoch, "probe_images": len(logits), "val_images": len(val.dataset)}
    names = getattr(pl_module, "class_names", None) or []
    if logits.shape != (len(targets), len(names)) or not hasattr(pl_module, "image_losses"):
        return facts
    facts |= {"classes": len(names), "plain_acc": float((logits.argmax(1) == targets).float().mean())}
    if len(logits) > 2 * len(names) and logits.isfinite().all():
        facts["output_rank"] = output_rank(logits)

    def accuracy(name: str) -> float:
        rights = [forward(trainer, pl_module, images).argmax(1) == targets for images, targets in seen[name]()]
        return float(torch.cat(rights).float().mean())

    facts["eval_transform_acc"] = facts["plain_acc"]
    if not torch.equal(next(seen["plain"]())[0], next(seen["eval_transform"]())[0]):
        facts["eval_transform_acc"] = accuracy("eval_transform")
    few, (augmented, of_augmented) = next(seen["val"]())[0], next(seen["train_transform_val"]())
    same_size = augmented.shape[2:] == few.shape[2:]  # at another one than that of this epoch, a network is worse
    if same_size and not of_augmented.is_floating_point():  # mixed images have no class
        facts["train_transform_val_acc"] = accuracy("train_transform_val")
    norms = [each for each in pl_module.modules() if isinstance(each, _BatchNorm) and each.running_mean is not None]
    averaged = any(isinstance(each, WeightAveraging) for each in trainer.callbacks)  # type: ignore[attr-defined]  # set elsewhere in Lightning
    waits = any(isinstance(each, nn.SyncBatchNorm) for each in norms)  # for other ranks
    if norms and same_size and not averaged and not waits:
        with batch_statistics(norms):
            facts["batch_stat_acc"] = accuracy("val")
    return facts


def setting_facts(trainer: Trainer, pl_module: LightningModule) -> Facts:
    """Return what network, optimizer and training data are like."""
    layers = find_layers(pl_module, types=WEIGHTS)
    loader: Any = trainer.train_dataloader
    rates = [each.p for each in pl_module.modules() if isinstance(each, _DropoutNd)]
    facts: Facts = {"layers": len(layers), "dropout_rate": max(rates, default=None)}
    if layers:
        facts["weight_eps"] = torch.finfo(next(iter(layers.values())).weight.dtype).eps
    if len(trainer.optimizers) == 1:
        facts["lr"] = trainer.optimizers[0].defaults.get("lr")
    steps = trainer.estimated_stepping_batches
    for each in trainer.callbacks:  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if isinstance(each, EMAWeightAveraging) and 0 < steps < math.inf and (decay := getattr(each, "decay", None)):
            updates = steps / each.update_every_n_steps
            facts |= {"initial_share": decay**updates, "usual_decay": round(1 - 10 / max(updates, 11), 4)}
    facts["pretrained"] = float(getattr(pl_module, "pretrained", None) is not None)
    if hasattr(loader, "render"):
        counts = torch.bincount(loader.dataset.targets)
        weighted = loader.balanced or getattr(pl_module, "unweighted_loss", None) is not None
        facts["balanced"] = float(loader.balanced)
        facts["imbalance"] = 1.0 if weighted else float(counts.max() / counts[counts > 0].min())
    return facts


def val_step_facts(trainer: Trainer, pl_module: LightningModule, batch: Any, preds: Tensor) -> Facts:
    """Return by how many deviations the validation step recognises fewer images than the network by itself."""
    images, targets, *_ = batch
    own = forward(trainer, pl_module, images).argmax(1) == targets
    of_step = preds == targets
    lost, won = (own & ~of_step).sum(), (of_step & ~own).sum()
    return {"val_step_z": float((lost - won) / (lost + won).clamp_min(1).sqrt())}


def views(train: Any, val: Any, count: int, epoch: int) -> dict[str, Callable[[], Iterator[tuple[Tensor, Tensor]]]]:
    """Return functions that yield batches: of train, plain and as val sees them; of val, and as train sees them."""
    plain = copy.copy(train)
    plain.transform = type(train.transform)([], train.transform.normalize)
    of_train, of_val = copy.copy(val.dataset), copy.copy(val.dataset)
    of_train.load, of_train.targets = train.dataset.load, train.dataset.targets
    of_val.transform = train.dataset.transform
    # plain images have transforms of single images only if val has some, because a Normalize may be among them
    return {
        "plain": partial(batches, plain, of_train if val.dataset.transform is None else train.dataset, count, epoch),
        "eval_transform": partial(batches, val, of_train, count, epoch),
        "val": partial(batches, val, val.dataset, count, epoch),
        "train_transform_val": partial(batches, train, of_val, count, epoch),
    }


def batches(loader: Any, dataset: Any, count: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and targets of a dataset, always the same ones, with the transforms of a loader."""
    view = copy.copy(loader)
    view.dataset = dataset
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    for positions in order.tensor_split(math.ceil(len(order) / loader.batch_size)):
        view.seed += 1  # for other random numbers in each batch, because a transform may draw one for all its images
        images, targets = view.render(positions, epoch)
        yield images[:, 0] if images.ndim == 5 else images, targets  # the first of several views of an image


def observe(
    trainer: Trainer, pl_module: LightningModule, images_and_targets: Iterator[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Facts]:
    """Return outputs for images, their targets, and of which layers the most channels are always 0, or saturated."""
    outputs, known = list[Tensor](), list[Tensor]()
    largest, saturated = dict[str, list[Tensor]](), dict[str, list[Tensor]]()

    def of_activation(function: str, output: Tensor) -> tuple[Tensor, Tensor]:
        share = output.new_zeros(())
        if function in SATURATED:
            share = ((output < SATURATED[function][0]) | (output > SATURATED[function][1])).float().mean()
        return output.abs().transpose(0, 1).flatten(1).amax(1), share.float()

    layers = find_layers(pl_module, types=WEIGHTS)
    for images, targets in images_and_targets:
        record = Outputs(lambda output: None, of_activation)
        with hooked(layers, record.keep), record:
            outputs.append(forward(trainer, pl_module, images))
        known.append(targets)
        for name, (channels, share) in record.after.items():
            largest.setdefault(name, []).append(channels)
            saturated.setdefault(name, []).append(share)
    facts: Facts = {}
    if largest:
        dead = torch.stack([(torch.stack(each).amax(0) == 0).float().mean() for each in largest.values()]).tolist()
        shares = torch.stack([torch.stack(each).mean() for each in saturated.values()]).tolist()
        facts["dead_share"], facts["dead_layer"] = max(zip(dead, largest, strict=True))
        facts["saturated_share"], facts["saturated_layer"] = max(zip(shares, largest, strict=True))
    return torch.cat(outputs).float(), torch.cat(known), facts


def output_rank(logits: Tensor) -> float:
    """Return in how many directions the outputs for images vary, relative to 8, or to the classes less one if fewer."""
    values = torch.linalg.svdvals((logits - logits.mean(0)).cpu().double())
    most = min(DIRECTIONS, logits.shape[1] - 1)
    return min(int((values > 1e-4 * values[0]).sum()), most) / max(most, 1)


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
