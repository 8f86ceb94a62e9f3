"""Detect a loss or weights of NaN or Inf."""

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from callbacks.tools import SHARDED
from callbacks.tools.layers import first_of, hooked, network_of

CHECK_INTERVAL = 50  # steps between checks on a device if nothing is logged


class NotFiniteError(Exception):
    """The loss or a weight became NaN or infinite."""


class TerminateOnNaN(Callback):
    """Stop training, or warn, when the loss or a weight is NaN or infinite, and name the first affected layer.

    On a CPU, every step is checked before its loss affects the weights. On other devices, all steps since the last
    check are checked every ``log_every_n_steps``, to avoid synchronisation. Weights are checked before validation, at
    the end of an epoch and before each checkpoint, so that no checkpoint contains NaN. Writes no tags.

    Args:
        action: "stop" raises an error; "warn" warns once and continues.

    Raises:
        NotFiniteError: With "stop", if the loss or a weight is not finite.
    """

    def __init__(self, action: Literal["stop", "warn"] = "stop") -> None:
        self.action = action
        self._losses: list[tuple[int, Tensor]] = []  # steps and losses since the last check
        self._batch: Any = None
        self._checked: int | None = None  # step after which the weights were checked
        self._reported = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if loss.device.type == "cpu" and loss.numel() == 1 and math.isfinite(loss.item()):
            return
        self._losses.append((trainer.global_step, loss.detach()))
        interval = getattr(trainer, "log_every_n_steps", 0) or CHECK_INTERVAL
        if loss.device.type == "cpu" or (trainer.global_step + 1) % interval == 0:
            self._check_losses(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batch is None or trainer.state.fn != TrainerFn.FITTING:  # before the first step, or no training
            return
        self._check_losses(trainer, pl_module)
        if self._checked == trainer.global_step:
            return
        self._checked = trainer.global_step
        # the last step may have made weights NaN although its loss was finite
        if not get_total_norm([parameter.detach() for parameter in pl_module.parameters()]).isfinite():
            self._report(trainer, pl_module, "weights that are not finite", trainer.global_step - 1)

    on_train_epoch_end = on_validation_start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch = None  # free its memory

    def _check_losses(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses, self._losses = self._losses, []
        values = torch.stack([loss.float().mean() for _, loss in losses]).tolist() if losses else []
        for (step, _), value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                self._report(trainer, pl_module, f"the loss {value}", step)

    def _report(self, trainer: Trainer, pl_module: LightningModule, what: str, step: int) -> None:
        if self._reported:
            return
        self._reported = True
        rates = [
            f"{group.get('name', i)} {group['lr']:.4g}" for i, group in enumerate(trainer.optimizers[0].param_groups)
        ]
        text = f"Expected a finite loss and weights, but got {what} in epoch {trainer.current_epoch + 1}, step {step}."
        text = f"{text} Learning rates: {', '.join(rates)}."
        if not isinstance(trainer.strategy, SHARDED):  # the search would need all processes
            text = f"{text} {where_it_begins(pl_module, self._batch)}"
        if self.action == "warn":
            rank_zero_warn(text)
            return
        raise NotFiniteError(
            f"{text} No checkpoint contains it. A smaller --model.optimizer.lr, --trainer.gradient_clip_val 1 or a "
            "warmup may help. To continue anyway, add TerminateOnNaN with `action: warn` to trainer.callbacks."
        )


def where_it_begins(pl_module: LightningModule, batch: Any) -> str:
    """Return a sentence that names the first layers with non-finite values, after running the images of a batch."""
    network = network_of(pl_module)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    if names := [name for name, tensor in tensors if not tensor.isfinite().all()]:
        return f"NaN or infinite values are in {first_of(names)}, caused by gradients of that step or an earlier one."
    outputs: list[str] = []

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            outputs.append(name or type(module).__name__)

    layers = {name: layer for name, layer in network.named_modules() if not list(layer.children())}
    training = [module for module in pl_module.modules() if module.training]
    pl_module.eval()
    try:
        with torch.no_grad(), hooked(layers, keep):
            pl_module(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for module in training:
            module.training = True
    if outputs:
        return f"All weights are finite, but the outputs of {first_of(outputs)} are not for the images of that batch."
    return "All weights and layer outputs are finite for the images of that batch; only the loss is not."
