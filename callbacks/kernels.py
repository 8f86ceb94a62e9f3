"""Images of convolution kernels, and a video of the first layer's over the epochs."""

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import find_layers
from callbacks.tools.pictures import CELL, enlarge, grid, symmetric, to_bytes
from callbacks.tools.transfer import to_cpu

MOST_LAYERS = 24  # that are drawn, spread over the depth
MOST_FRAMES = 100  # of the video, if max_epochs is known; with more epochs, it has every n-th


class ConvolutionKernels(DrawingCallback):
    """Draw the kernels of up to 24 2-D convolutions at the end of an epoch, from the trained weights, not the average.

    Grey is zero, white the largest weight of the layer by magnitude, black its negative. A layer with three input
    channels is also drawn in colour.

    Tags: ``kernels/<layer>`` (all: one row per output channel, one column per input channel), ``kernels_split/<layer>``
    (one block per output channel, with its input channels arranged in a square) and ``kernels_colour/<layer>`` (one
    cell per output channel); at the end of training ``kernels_video/<layer>``, the first convolution epoch by epoch.

    Args:
        every_n_epochs: See ``DrawingCallback``; the video has every epoch, or 100 to 199 of them.
        max_channels: Maximum numbers of input and of output channels of a layer to draw, from the first.
    """

    needs_network = True

    def __init__(self, every_n_epochs: PositiveInt | None = 10, max_channels: PositiveInt = 32) -> None:
        super().__init__(every_n_epochs)
        self.max_channels = max_channels
        self._frames: dict[int, Tensor] = {}  # kernels of the first convolution by epoch, as grey levels, uint8

    @rank_zero_only
    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.due(trainer)
        layers = {} if self.silent else find_layers(pl_module, most=MOST_LAYERS if due else 1)
        # slice after scaling, so that grey and white are the same for all kernels, but before the transfer
        weights = {name: symmetric(layer.weight) for name, layer in layers.items()}
        shades = to_cpu({name: each[: self.max_channels, : self.max_channels] for name, each in weights.items()})
        if shades and trainer.current_epoch % max((trainer.max_epochs or 0) // MOST_FRAMES, 1) == 0:
            first = next(iter(shades.values()))
            self._frames[trainer.current_epoch + 1] = to_bytes(first)
        if due:
            self.draw_later(trainer, shades)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self._frames) > 1:
            self.draw_later(trainer, {}, next(iter(find_layers(pl_module))), dict(self._frames))

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self._frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._frames = dict(state_dict["frames"])

    def draw(
        self, log: LogSnapshot, layers: dict[str, Tensor], first: str = "", frames: dict[int, Tensor] | None = None
    ) -> None:
        for name, shades in layers.items():
            cells = enlarge(to_bytes(shades), CELL).unsqueeze(2)  # (outputs, inputs, 1, H, W)
            caption = f"Kernels of {name}, {log.moment}: grey is 0"
            rows = grid(cells.flatten(0, 1), columns=shades.shape[1])
            log.image(f"kernels/{name}", rows, f"{caption}; one row per output, one column per input")
            blocks = grid(grid(cells), gap=8)
            log.image(f"kernels_split/{name}", blocks, f"{caption}; one block per output channel")
            if shades.shape[1] == 3:
                log.image(f"kernels_colour/{name}", coloured(shades), f"{caption}; red, green and blue are the inputs")
        if frames:
            captions = [f"Kernels of {first}, epoch {epoch}" for epoch in frames]
            log.video(f"kernels_video/{first}", [coloured(frame) for frame in frames.values()], captions)


def coloured(shades: Tensor) -> Tensor:
    """Return the kernels of a layer, ``(outputs, inputs, H, W)``, in colour, or else those of the first input."""
    kernels = shades if shades.shape[1] == 3 else shades[:, :1].expand(-1, 3, -1, -1)
    return grid(enlarge(to_bytes(kernels), 2 * CELL))
