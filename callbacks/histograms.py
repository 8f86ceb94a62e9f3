"""Histograms of weights, gradients, updates and activations."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules import activation

from callbacks.base.images import ImageCallback, Selection
from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.tools.histogram import TensorStatistics, count, unpack
from callbacks.tools.layers import forward, hooked, matching_layers, network_of

Kind = Literal["weights", "gradients", "updates"]
# layers of ``ActivationHistograms``
COMMON = (nn.modules.conv._ConvNd, nn.Linear, *(getattr(activation, name) for name in activation.__all__))


class Histograms(StepCallback):
    """Log histograms of every weight, its gradient and its update, at the middle step of an epoch.

    Gradients are those of the whole step: accumulated, unscaled, before clipping. Weights are those before the step.
    Updates are the changes by the step. NaN and infinite values are excluded from the histograms and reported.

    Tags: ``weights/<parameter>``, ``gradients/<parameter>`` and ``updates/<parameter>``, in units of the parameter, of
    loss per parameter, and of the parameter.

    Args:
        kinds: Which of "weights", "gradients" and "updates" to log.
        every_n_epochs: Log in every n-th epoch and the last planned one.
    """

    def __init__(
        self, kinds: Sequence[Kind] = ("weights", "gradients", "updates"), every_n_epochs: PositiveInt = 1
    ) -> None:
        super().__init__(every_n_epochs)
        self.kinds = kinds

    def draw(self, log: LogSnapshot, step: Step) -> None:
        statistics = {f"{kind}/{name}": each for kind in self.kinds for name, each in getattr(step, kind).items()}
        log_histograms(log, statistics, step.number)


class ActivationHistograms(ImageCallback):
    """Log histograms of the outputs of layers for validation images.

    Tags: ``activations/<layer>``.

    Args:
        layers: Shell patterns of module names within the network; by default all convolutions, linear layers and
            activation functions that are modules.
        images: Number of images, distributed evenly over the classes, or their positions in the validation set.
        **kwargs: See ``ImageCallback``.

    Raises:
        MisconfigurationException: A pattern matches no layer.
    """

    required_media = ("histograms",)

    def __init__(self, layers: Sequence[str] | None = None, images: int | list[int] = 64, **kwargs: Any) -> None:
        super().__init__(images, **kwargs)
        self.layers = layers

    def find_layers(self, pl_module: LightningModule) -> dict[str, nn.Module]:
        if self.layers is not None:
            return matching_layers(pl_module, self.layers, self)
        return {name: layer for name, layer in network_of(pl_module).named_modules() if isinstance(layer, COMMON)}

    def collect(self, trainer: Trainer, pl_module: LightningModule, selection: Selection) -> tuple[Any, ...] | None:
        rows: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # count now, because the next layer may work in place
                rows[f"activations/{name}"] = count([output])[0]

        with hooked(self.find_layers(pl_module), keep):
            forward(trainer, pl_module, selection.images)
        return (unpack(rows, torch.stack(list(rows.values()))), trainer.global_step) if rows else None

    def draw(self, log: LogSnapshot, statistics: dict[str, TensorStatistics], step: int) -> None:
        log_histograms(log, statistics, step)


def log_histograms(log: LogSnapshot, statistics_of: dict[str, TensorStatistics], step: int) -> None:
    """Log the histograms of tensors that have finite values, and warn about NaN and infinite values."""
    for tag, statistics in statistics_of.items():
        if statistics.histogram is not None:
            log.histogram(tag, statistics.histogram)
    broken = [f"{tag} ({each.nonfinite:,})" for tag, each in statistics_of.items() if each.nonfinite]
    if broken:
        more = f" and {len(broken) - 5} others" if len(broken) > 5 else ""
        rank_zero_warn(f"NaN or infinite values at step {step}: {', '.join(broken[:5])}{more}.")
