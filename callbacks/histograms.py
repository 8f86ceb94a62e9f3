"""Histograms of weights, gradients, updates and activations."""

from collections.abc import Sequence
from typing import Any, Literal

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules import activation

from callbacks.base.images import ImageCallback, Images
from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.tools.histogram import Histogram, count, unpack
from callbacks.tools.layers import first_of, forward, hooked

Kind = Literal["weights", "gradients", "updates"]


class Histograms(StepCallback):
    """Log histograms of every weight, its gradient and its update, at the middle step of an epoch.

    Gradients are those of the whole step: accumulated, unscaled, before clipping. Weights are those before the step.
    Updates are the changes by the step. NaN and infinite values are excluded from the histograms and reported.

    Tags: ``weights/<parameter>``, ``gradients/<parameter>`` and ``updates/<parameter>``, in units of the parameter, of
    loss per parameter, and of the parameter.

    Args:
        kinds: Which of "weights", "gradients" and "updates" to log.
    """

    def __init__(
        self, kinds: Sequence[Kind] = ("weights", "gradients", "updates"), every_n_epochs: PositiveInt | None = None
    ) -> None:
        super().__init__(every_n_epochs)
        self.kinds = kinds

    def draw(self, log: LogSnapshot, step: Step) -> None:
        for kind in self.kinds:
            histograms = {"weights": step.weights, "gradients": step.gradients, "updates": step.updates}[kind]()
            log_histograms(log, kind, histograms, step.number)


class ActivationHistograms(ImageCallback):
    """Log histograms of the outputs of layers for validation images.

    Tags: ``activations/<layer>``.

    Args:
        layers: Shell patterns of module names within the network; by default all convolutions, linear layers and
            activation functions that are modules.
        images: See ``ImageCallback``.
        **kwargs: See ``ImageCallback``.

    Raises:
        MisconfigurationException: A pattern matches no layer.
    """

    layer_types = (nn.modules.conv._ConvNd, nn.Linear, *(getattr(activation, name) for name in activation.__all__))

    def __init__(self, layers: Sequence[str] | None = None, images: Images = 64, **kwargs: Any) -> None:
        super().__init__(images, **kwargs)
        self.layers = layers

    def collect(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, targets: Tensor) -> tuple[Any, ...]:
        counts: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                counts[name] = count(output)  # now, because the next layer may work in place

        with hooked(self.find_layers(pl_module), keep):
            forward(trainer, pl_module, images)
        return (unpack(counts), trainer.global_step)

    def draw(self, log: LogSnapshot, histograms: dict[str, Histogram], step: int) -> None:
        log_histograms(log, "activations", histograms, step)


def log_histograms(log: LogSnapshot, kind: str, histograms: dict[str, Histogram], step: int) -> None:
    """Log histograms of tensors of a kind, and warn about NaN and infinite values."""
    log.histograms({f"{kind}/{name}": histogram for name, histogram in histograms.items()})
    if broken := [f"{kind}/{name} ({each.nonfinite:,})" for name, each in histograms.items() if each.nonfinite]:
        rank_zero_warn(f"NaN or infinite values at step {step}: {first_of(broken)}.")
