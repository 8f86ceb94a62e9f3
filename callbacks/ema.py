"""An average of weights, validated and kept instead of the weights themselves."""

import warnings

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from callbacks.base.drawing import SHARDED


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average, on the device that trains: ``EMAWeightAveraging`` leaves it on the host.

    Validation, checkpoints and the module after a fit hold the average, batch norm's statistics among it. It begins
    with the first step; one that begins later would validate weights that are not trained. Writes no tag.

    Args:
        decay: Share of the average that is kept at each update: 0.99 averages about the last 100.
        update_every_n_steps: Steps from one update to the next.
    """

    def __init__(self, decay: float = 0.99, update_every_n_steps: int = 1) -> None:
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with warnings.catch_warnings():
            if not isinstance(trainer.strategy, SHARDED):  # which Lightning fears, as the module can be divided
                warnings.filterwarnings("ignore", message=".*WeightAveraging doesn't support sharding")
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)  # not its counter, whose value the host asks for
