"""Pictures of what layers make of images."""

import fnmatch
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from callbacks.gather import network_of, to_cpu
from callbacks.loggers import log_image, warn_if_blind
from callbacks.pictures import enlarge, grid, min_max

SIDE = 64  # of an image or map, in pixels
DEFAULT_LAYERS = 4


class FeatureMaps(Callback):
    """Draw the output channels of named layers for the first validation images, beside the images.

    A forward hook stands on the layers for one batch of each n-th epoch, and on no other.

    Tags: ``feature_maps/<layer>``: a row for each image; the de-normalised image, then the layer's channels, each
    stretched from its darkest to its lightest value.

    Args:
        layers: Shell patterns of module names below the network, as "conv1" or "stages.*.0"; by default up to four
            convolutions, from the first to the last. A layer that makes anything but ``(N, C, H, W)`` is an error.
        every_n_epochs: Draw each n-th epoch.
        num_images: Draw so many images.
        max_channels: Draw the first so many channels.

    Raises:
        MisconfigurationException: A pattern matches no layer, or one that makes no maps.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        every_n_epochs: PositiveInt = 1,
        num_images: PositiveInt = 4,
        max_channels: PositiveInt = 16,
    ) -> None:
        self.layers = layers
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.max_channels = max_channels
        self._handles: list[RemovableHandle] = []
        self._outputs: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._named_layers(pl_module)
            warn_if_blind(trainer, self)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        # the sanity check tries the layers out before training; nothing is drawn then
        if (trainer.current_epoch + 1) % self.every_n_epochs and not trainer.sanity_checking:
            return
        for name, layer in self._named_layers(pl_module).items():
            self._handles.append(layer.register_forward_hook(partial(self._keep, name)))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self._handles:
            return
        self._remove_hooks()
        outputs_of, self._outputs = self._outputs, {}
        maps = to_cpu({name: self._maps_of(name, outputs_of.get(name)) for name in self._named_layers(pl_module)})
        if trainer.sanity_checking:
            return
        images = batch[0].flatten(0, -4)[: self.num_images]  # views of one image stand in a row of their own
        denormalize: Callable[[Tensor], Tensor] = getattr(pl_module, "denormalize", min_max)
        images = denormalize(images)
        images = enlarge(images.cpu(), SIDE)
        for name, values in maps.items():
            log_image(trainer, f"feature_maps/{name}", self._draw(images, values))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_hooks()

    def _named_layers(self, pl_module: LightningModule) -> dict[str, nn.Module]:
        modules = {name: module for name, module in network_of(pl_module).named_modules() if name}
        if self.layers is None:
            convolutions = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
            count = min(DEFAULT_LAYERS, len(convolutions))
            chosen = torch.linspace(0, len(convolutions) - 1, count).round().int().tolist()
            return {convolutions[i]: modules[convolutions[i]] for i in chosen}
        found: dict[str, nn.Module] = {}
        for pattern in self.layers:
            matching = {name: module for name, module in modules.items() if fnmatch.fnmatchcase(name, pattern)}
            if not matching:
                near = get_close_matches(pattern, modules, 5, cutoff=0.3) or list(modules)[:5]
                raise MisconfigurationException(
                    f"Expected layers {pattern!r} of FeatureMaps to match a layer of the network, but it matches none "
                    f"of its {len(modules)}. Among them are {', '.join(near)}."
                )
            found |= matching
        return found

    def _keep(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._outputs[name] = output

    def _maps_of(self, name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise MisconfigurationException(
                f"Expected layer {name!r} of FeatureMaps to make maps (N, C, H, W), but it makes {shape}. "
                "Take it out of layers."
            )
        return output[: self.num_images, : self.max_channels]

    def _remove_hooks(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _draw(self, images: Tensor, maps: Tensor) -> Tensor:
        shades = nn.functional.interpolate(min_max(maps), size=images.shape[-2:], mode="nearest")
        cells = shades.unsqueeze(2).expand(-1, -1, 3, -1, -1)
        return grid(torch.cat([images.unsqueeze(1), cells], dim=1))
