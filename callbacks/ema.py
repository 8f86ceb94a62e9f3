"""Exponential moving average of the weights."""

import warnings

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from callbacks.tools import SHARDED


class EMA(EMAWeightAveraging):
    """Lightning's ``EMAWeightAveraging`` with the average on the training device instead of the host.

    Validation, checkpoints and the module after a fit use the average, including batch norm's running statistics. It
    starts with the first step; a later start would validate untrained weights. Writes no tags.

    Args:
        decay: Weight of the old average in each update: 0.99 averages about the last 100 updates.
        update_every_n_steps: Number of steps between updates.
    """

    def __init__(self, decay: float = 0.99, update_every_n_steps: int = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with warnings.catch_warnings():
            if not isinstance(trainer.strategy, SHARDED):  # Lightning warns because the module could be sharded
                warnings.filterwarnings("ignore", message=".*WeightAveraging doesn't support sharding")
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)  # its counter stays on the host, which reads its value
