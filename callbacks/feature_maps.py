"""Feature maps of convolutional layers for validation images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from callbacks.base.images import ImageCallback, Selection
from callbacks.base.log import LogSnapshot
from callbacks.tools.layers import convolutions, denormalized, find_layers, forward, hooked
from callbacks.tools.pictures import BACKGROUND, enlarge, grid, min_max
from callbacks.tools.transfer import to_cpu

SIDE = 64  # side of an image or map, in pixels
DEFAULT_LAYERS = 4
# activations that a network may call as a module, as a function or as a tensor method
ACTIVATIONS = {"relu", "relu_", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh"}
ACTIVATIONS |= {"sigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "rrelu"}


class FeatureMaps(ImageCallback):
    """Draw the output channels of layers for validation images, next to the images.

    Tags: ``feature_maps/<layer>``: for each image, a row of the de-normalised image and the layer's channels, and below
    it a row of the outputs of the next activation function, if it receives the same number of channels. The contrast of
    each channel is stretched to its minimum and maximum, separately in each row.

    Args:
        layers: Shell patterns of module names within the network, such as "conv1" or "stages.*.0"; by default up to
            four convolutions, from the first to the last. The output of a layer must be ``(N, C, H, W)``.
        images: Number of images, as many of each class, or their positions in the validation set.
        random: Take others in each epoch.
        max_channels: Maximum number of channels to draw, from the first.
        every_n_epochs: Draw in every n-th epoch and the last planned one.

    Raises:
        MisconfigurationException: A pattern matches no layer, or a layer whose output is not ``(N, C, H, W)``.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        images: int | list[int] = 4,
        random: bool = False,
        max_channels: PositiveInt = 16,
        every_n_epochs: PositiveInt = 1,
    ) -> None:
        super().__init__(images, random, every_n_epochs)
        self.layers = layers
        self.max_channels = max_channels

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._find(pl_module)

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        if not (layers := self._find(pl_module)):
            return None
        outputs = Outputs(self.max_channels)
        with hooked(layers, outputs.keep), outputs:
            forward(trainer, pl_module, selection.images)
        maps: dict[str, Tensor] = {}
        for name in layers:
            maps[f"before {name}"] = self._checked(name, outputs.before.get(name))
            if name in outputs.after and outputs.after[name].ndim == 4:
                maps[f"after {name}"] = outputs.after[name]
        maps["images"] = denormalized(pl_module, selection.images)
        return (list(layers), to_cpu(maps))

    def draw(self, log: LogSnapshot, layers: list[str], maps: dict[str, Tensor]) -> None:
        images = enlarge(maps["images"], SIDE)
        for name in layers:
            rows, content = [self._row(images, maps[f"before {name}"])], "the image and channels"
            if f"after {name}" in maps:
                rows.append(self._row(torch.full_like(images, BACKGROUND), maps[f"after {name}"]))
                content += "; below each, the same after the activation"
            cells = torch.stack(rows, 1).flatten(0, 1)  # (images * rows, 1 + channels, 3, H, W)
            log.image(f"feature_maps/{name}", grid(cells), f"Feature maps of {name}, {log.moment}: {content}")

    def _find(self, pl_module: LightningModule) -> dict[str, nn.Module]:
        if self.layers is None:
            return convolutions(pl_module, DEFAULT_LAYERS)
        return find_layers(pl_module, self.layers, self)

    def _checked(self, name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise MisconfigurationException(
                f"Expected layer {name!r} of FeatureMaps to return maps (N, C, H, W), but got {shape}. "
                "Remove it from layers."
            )
        return output

    def _row(self, images: Tensor, maps: Tensor) -> Tensor:
        shades = F.interpolate(min_max(maps), size=images.shape[-2:], mode="nearest")
        return torch.cat([images.unsqueeze(1), shades.unsqueeze(2).expand(-1, -1, 3, -1, -1)], dim=1)


class Outputs(TorchFunctionMode):
    """Record the outputs of layers and of the next activation, whether it is a module or a call in ``forward``.

    Register ``keep`` as the forward hook of each layer. The activation of a layer is the first one called after it that
    receives as many channels; a norm or a sum may come between them.

    Args:
        max_channels: Maximum number of channels to record, from the first.
    """

    def __init__(self, max_channels: int) -> None:
        super().__init__()
        self.max_channels = max_channels
        self.before: dict[str, Any] = {}
        self.after: dict[str, Tensor] = {}
        self._open: dict[str, int] = {}  # layers whose activation has not been called yet, and their number of channels

    def keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2:
            self.before[name] = output
            return
        self.before[name] = output[:, : self.max_channels].clone()  # copy before an in-place activation
        self._open[name] = output.shape[1]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._open and getattr(func, "__name__", "") in ACTIVATIONS and isinstance(output, Tensor):
            for name in [name for name, channels in self._open.items() if output.shape[1:2] == (channels,)]:
                self.after[name] = output[:, : self.max_channels].clone()
                del self._open[name]
        return output
