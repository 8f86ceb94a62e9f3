"""Fit the first layer of a network to training images."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

IMAGES = 5000  # as in Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds"


class Whitening(Callback):
    """Call ``whiten`` of the network with training images when training starts, unless its ``whitened`` is true."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.network
        if not getattr(network, "whitened", False):  # of a network such as Airbench
            network.whiten(training_images(trainer).to(pl_module.device))  # type: ignore[operator, union-attr]  # for mypy, Tensors


def training_images(trainer: Trainer) -> Tensor:
    """Return about 5,000 normalised training images on the host, the same in every process."""
    loader = trainer.train_dataloader
    if callable(unaugmented := getattr(loader, "unaugmented", None)):  # without batch augmentation, in full size
        images = unaugmented(IMAGES)
    else:
        batches: list[Tensor] = []
        for batch in loader:  # type: ignore[union-attr]  # there is one in training
            batches.append(batch[0])
            if sum(map(len, batches)) >= IMAGES:
                break
        images = torch.cat(batches)[:IMAGES]
    return trainer.strategy.broadcast(images.cpu())  # via the host, or all would get it on the first process's device
