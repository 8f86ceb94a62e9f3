"""Feature maps of convolutional layers for validation images."""

from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from callbacks.base.images import ImageCallback
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import check_maps, denormalized, forward, hooked, min_max
from callbacks.tools.outputs import Outputs
from callbacks.tools.pictures import GREY, enlarge, grid, to_bytes
from callbacks.tools.transfer import to_cpu

SIDE = 64  # side of an image or map, in pixels


class FeatureMaps(ImageCallback):
    """Draw the output channels of layers for validation images, next to the images.

    Tags: ``feature_maps/<layer>``: for each image, a row of the de-normalised image and the layer's channels, and below
    it a row of the outputs of the next activation function, if it receives the same number of channels. The contrast of
    each channel is stretched to its minimum and maximum, separately in each row.

    Args:
        layers: Shell patterns of module names within the network, such as "conv1" or "stages.*.0"; by default up to
            four convolutions, from the first to the last. The output of a layer must be ``(N, C, H, W)``.
        max_channels: Maximum number of channels to draw, from the first.
        **kwargs: See ``ImageCallback``.

    Raises:
        MisconfigurationException: A pattern matches no layer, or a layer whose output is not ``(N, C, H, W)``.
    """

    layer_types = nn.Conv2d
    most_layers = 4

    def __init__(self, layers: Sequence[str] | None = None, max_channels: PositiveInt = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = layers
        self.max_channels = max_channels

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        def first(output: Tensor) -> Tensor:
            return output[:, : self.max_channels].clone()  # before an in-place activation

        layers, outputs = self.find_layers(pl_module), Outputs(first, lambda _, output: first(output))
        with hooked(layers, outputs.keep), outputs:
            forward(trainer, pl_module, images)
        maps = {f"before {name}": check_maps(outputs.before.get(name), name) for name in layers}
        maps |= {f"after {name}": output for name, output in outputs.after.items() if output.ndim == 4}
        return (list(layers), to_cpu(maps | {"images": denormalized(pl_module, images)}))

    def draw(self, log: LogSnapshot, layers: list[str], maps: dict[str, Tensor]) -> None:
        images = enlarge(to_bytes(maps["images"]), SIDE)
        for name in layers:
            rows, content = [row(images, maps[f"before {name}"])], "the image and channels"
            if f"after {name}" in maps:
                rows.append(row(torch.full_like(images, GREY), maps[f"after {name}"]))
                content += "; below each, the same after the activation"
            cells = torch.stack(rows, 1)  # (images, rows of each, 1 + channels, 3, H, W)
            picture = grid(cells.flatten(0, 2), columns=cells.shape[2])
            log.image(f"feature_maps/{name}", picture, f"Feature maps of {name}, {log.moment}: {content}")


def row(images: Tensor, maps: Tensor) -> Tensor:
    """Return cells ``(N, 1 + C, 3, H, W)``: each image, uint8 ``(N, 3, H, W)``, with its maps ``(N, C, h, w)``."""
    shades = F.interpolate(to_bytes(min_max(maps)), size=images.shape[-2:], mode="nearest")
    return torch.cat([images.unsqueeze(1), shades.unsqueeze(2).expand(-1, -1, 3, -1, -1)], dim=1)
