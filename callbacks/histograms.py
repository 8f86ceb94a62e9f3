"""Histograms of weights and gradients."""

from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from callbacks.gather import gather, network_of
from callbacks.loggers import log_histogram, warn_if_blind


class WeightAndGradientHistograms(Callback):
    """Log the distribution of every weight and of its gradient, at the last step of an epoch.

    Gradients are those of the whole step: accumulated, unscaled, before clipping. Weights are those that the gradients
    belong to, before the step changes them. NaN and infinite values are left out of the histograms and reported.

    Tags: ``weights/<parameter>`` and ``gradients/<parameter>``, in units of the parameter and of loss per parameter.

    Args:
        every_n_epochs: Log each n-th epoch.
    """

    def __init__(self, every_n_epochs: PositiveInt = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warn_if_blind(trainer, self, histograms=True)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not trainer.is_last_batch or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        if not trainer.is_global_zero:
            return
        parameters = dict(network_of(pl_module).named_parameters())
        tensors: dict[str, Tensor] = {f"weights/{name}": parameter for name, parameter in parameters.items()}
        tensors |= {f"gradients/{name}": p.grad for name, p in parameters.items() if p.grad is not None}
        found = gather(tensors)
        for tag, statistics in found.items():
            if statistics.histogram is not None:
                log_histogram(trainer, tag, statistics.histogram)
        broken = [f"{tag} ({statistics.nonfinite})" for tag, statistics in found.items() if statistics.nonfinite]
        if broken:
            more = f" and {len(broken) - 5} others" if len(broken) > 5 else ""
            rank_zero_warn(f"NaN or infinite values at step {trainer.global_step}: {', '.join(broken[:5])}{more}.")
