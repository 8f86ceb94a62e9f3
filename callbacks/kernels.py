"""Images of convolution kernels, and a video of the first layer's over the epochs."""

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import convolutions
from callbacks.tools.pictures import CELL, add_caption, enlarge, grid, symmetric, wrap
from callbacks.tools.transfer import to_cpu

MOST_FRAMES = 200  # frames of the video; when there are more, every other one is dropped


class ConvolutionKernels(DrawingCallback):
    """Draw the kernels of every 2-D convolution at the end of an epoch, from the trained weights, not their average.

    Grey is zero, white the largest weight of the layer by magnitude, black its negative. A layer with three input
    channels is also drawn in colour.

    Tags: ``kernels/<layer>`` (all: one row per output channel, one column per input channel), ``kernels_split/<layer>``
    (one block per output channel, with its input channels arranged in a square) and ``kernels_colour/<layer>`` (one
    cell per output channel); at the end of training ``kernels_video/<layer>``, the first convolution epoch by epoch.

    Args:
        every_n_epochs: Draw in every n-th epoch and the last planned one; the video has every epoch, or 100 to 200 of
            them.
        max_outputs: Maximum number of output channels of a layer to draw, from the first.
        max_inputs: Maximum number of input channels of a layer to draw, from the first.
        max_layers: Maximum number of layers to draw, spread over the depth.
    """

    required_media = ("images", "videos")
    needs_network = True

    def __init__(
        self,
        every_n_epochs: PositiveInt = 5,
        max_outputs: PositiveInt = 32,
        max_inputs: PositiveInt = 32,
        max_layers: PositiveInt = 24,
    ) -> None:
        super().__init__(every_n_epochs)
        self.max_outputs = max_outputs
        self.max_inputs = max_inputs
        self.max_layers = max_layers
        self._first = ""
        self._frames: dict[int, Tensor] = {}  # kernels of the first convolution by epoch, as grey levels, uint8

    @rank_zero_only
    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.sharded:
            return
        layers = convolutions(pl_module, self.max_layers if self.due(trainer) else 1)
        weights: dict[str, Any] = {name: layer.weight for name, layer in layers.items()}
        if not weights:
            return
        # slice after scaling, so that grey and white are the same for all kernels, but before the transfer
        parts = {name: symmetric(weight)[: self.max_outputs, : self.max_inputs] for name, weight in weights.items()}
        shades = to_cpu(parts)
        self._first = next(iter(shades))
        if len(self._frames) >= MOST_FRAMES:
            self._frames = dict(list(self._frames.items())[::2])
        self._frames[trainer.current_epoch + 1] = (shades[self._first] * 255).round().byte()
        if self.due(trainer):
            coloured = {name for name in shades if weights[name].shape[1] == 3 <= self.max_inputs}
            self.draw_later(trainer, shades, coloured)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self._frames) > 1:
            self.draw_later(trainer, {}, set(), dict(self._frames))

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self._frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._frames = dict(state_dict["frames"])

    def draw(
        self, log: LogSnapshot, shades: dict[str, Tensor], coloured: set[str], frames: dict[int, Tensor] | None = None
    ) -> None:
        for name, layer in shades.items():
            cells = enlarge(layer, CELL).unsqueeze(2).expand(-1, -1, 3, -1, -1)  # (outputs, inputs, 3, H, W)
            caption = f"Kernels of {name}, {log.moment}: grey is 0"
            log.image(f"kernels/{name}", grid(cells), f"{caption}; one row per output, one column per input")
            blocks = torch.stack([grid(wrap(channel)) for channel in cells]) / 255
            log.image(f"kernels_split/{name}", grid(wrap(blocks), gap=8), f"{caption}; one block per output channel")
            if name in coloured:
                log.image(f"kernels_colour/{name}", _in_colour(layer), f"{caption}; red, green and blue are the inputs")
        if frames:
            video = []
            for epoch, shades_then in frames.items():
                layer = shades_then / 255
                kernels = layer if layer.shape[1] == 3 else layer[:, :1].expand(-1, 3, -1, -1)  # or the first input
                video.append(add_caption(_in_colour(kernels), f"Kernels of {self._first}, epoch {epoch}"))
            log.video(f"kernels_video/{self._first}", video)


def _in_colour(layer: Tensor) -> Tensor:
    return grid(wrap(enlarge(layer, 2 * CELL)))
