"""Pictures of convolution kernels."""

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from callbacks.gather import network_of, to_cpu
from callbacks.loggers import log_image, warn_if_blind
from callbacks.pictures import CELL, enlarge, grid, symmetric, wrap


class ConvolutionKernels(Callback):
    """Draw the kernels of every 2-D convolution at the end of an epoch.

    Grey is zero, white the largest weight of the layer by magnitude, black its negative. A layer that reads three
    channels is drawn once more in colour.

    Tags: ``kernels/<layer>`` (all: a row for each output channel, a column for each input channel),
    ``kernels_split/<layer>`` (a block for each output channel, in which its input channels are laid out as a square)
    and ``kernels_colour/<layer>`` (a cell for each output channel).

    Args:
        every_n_epochs: Draw each n-th epoch.
        max_outputs: Draw the first so many output channels of a layer.
        max_inputs: Draw the first so many input channels of a layer.
    """

    def __init__(
        self, every_n_epochs: PositiveInt = 1, max_outputs: PositiveInt = 32, max_inputs: PositiveInt = 32
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.max_outputs = max_outputs
        self.max_inputs = max_inputs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warn_if_blind(trainer, self)

    @rank_zero_only
    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        modules = network_of(pl_module).named_modules()
        weights = to_cpu({name: module.weight for name, module in modules if isinstance(module, nn.Conv2d)})
        for name, weight in weights.items():
            self._draw(trainer, name, weight)

    def _draw(self, trainer: Trainer, name: str, weight: torch.Tensor) -> None:
        shades = enlarge(symmetric(weight)[: self.max_outputs, : self.max_inputs], CELL)  # (outputs, inputs, H, W)
        cells = shades.unsqueeze(2).expand(-1, -1, 3, -1, -1)
        log_image(trainer, f"kernels/{name}", grid(cells))
        blocks = torch.stack([grid(wrap(channel)) for channel in cells]) / 255
        log_image(trainer, f"kernels_split/{name}", grid(wrap(blocks), gap=8))
        if weight.shape[1] == 3:
            log_image(trainer, f"kernels_colour/{name}", grid(wrap(shades)))
