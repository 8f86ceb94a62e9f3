"""A LightningDataModule of a user, without anything from this project."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class PlainDataModule(LightningDataModule):
    """Noise of two classes: bright and dark."""

    class_names = ("dark", "bright")
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    image_size = 32
    class_counts = (32, 32)

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size

    def _loader(self, shuffle: bool = False) -> DataLoader:
        targets = torch.arange(64) % 2
        images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5
        images += 0.5 * targets.view(-1, 1, 1, 1)
        return DataLoader(TensorDataset((images - 0.5) / 0.25, targets), self.batch_size, shuffle)

    def train_dataloader(self) -> DataLoader:
        return self._loader(shuffle=True)

    val_dataloader = test_dataloader = _loader
