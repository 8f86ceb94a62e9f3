"""Fit the first layer of a network to training images."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

IMAGES = 5000  # as in Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds"


class Whitening(Callback):
    """Call ``whiten`` of the network with training images when training starts, unless its ``whitened`` is true."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.network
        if not getattr(network, "whitened", False):  # of a network such as Airbench
            network.whiten(training_images(trainer, pl_module).to(pl_module.device))  # type: ignore[operator, union-attr]  # for mypy, Tensors


def training_images(trainer: Trainer, pl_module: Any) -> Tensor:
    """Return about 5,000 normalised training images on the host, the same in every process."""
    loader: Any = trainer.train_dataloader
    dataset: Any = getattr(loader, "dataset", None)
    if callable(load := getattr(dataset, "load", None)):  # evenly spaced, without augmentation
        images = pl_module.normalize(load(torch.arange(0, len(dataset), -(-len(dataset) // IMAGES)))[0])
    else:
        batches: list[Tensor] = []
        for batch in loader:
            batches.append(batch[0])
            if sum(map(len, batches)) >= IMAGES:
                break
        images = torch.cat(batches)[:IMAGES]
    return trainer.strategy.broadcast(images.cpu())  # via the host, or all would get it on the first process's device
