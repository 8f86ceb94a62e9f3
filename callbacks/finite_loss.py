"""A run that has lost its numbers, told as soon as it has."""

from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from callbacks.base.drawing import SHARDED
from callbacks.tools.layers import hooked, network_of

OFTEN = 50  # steps from look to look on a device, if nothing is logged


class NotFiniteError(Exception):
    """The loss or a weight became NaN or infinite."""


class TerminateOnNaN(Callback):
    """Stop a run, or warn, when its loss or a weight is NaN or infinite, and say where in the network that began.

    On a CPU every step is looked at, before its loss reaches the weights. On other devices, which would have to be
    waited for, all steps since the last look are, every ``log_every_n_steps``. Weights are looked at before validation,
    at an epoch's end and before each checkpoint, so that none holds others. Writes no tag.

    Args:
        action: "stop" ends the run; "warn" tells the first time, and lets it go on.

    Raises:
        NotFiniteError: With "stop".
    """

    def __init__(self, action: Literal["stop", "warn"] = "stop") -> None:
        self.action = action
        self._told = False
        self._seen = -1  # the last step of which the weights were looked at
        self._losses: list[tuple[int, Tensor]] = []  # of the steps since the last look
        self._batch: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._told, self._seen = False, -1
        self._losses.clear()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._told:
            return
        self._losses.append((trainer.global_step, loss.detach()))
        often = getattr(trainer, "log_every_n_steps", 0) or OFTEN
        if loss.device.type == "cpu" or (trainer.global_step + 1) % often == 0:
            self._look(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_at_all(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_at_all(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look_at_all(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch = None

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._losses:
            return
        values = torch.stack([loss.float().mean() for _, loss in self._losses]).cpu()
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            first = int(bad[0])
            self._tell(trainer, pl_module, f"the loss {values[first].item()}", self._losses[first][0])
        self._losses.clear()

    def _look_at_all(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the weights, too: a last step may have spoilt them with a finite loss."""
        if trainer.sanity_checking or self._told or self._batch is None or self._seen == trainer.global_step:
            return
        self._seen = trainer.global_step
        self._look(trainer, pl_module)
        weights = [parameter.detach() for parameter in pl_module.parameters()]
        if not self._told and not get_total_norm(weights).isfinite():
            self._tell(trainer, pl_module, "weights that are not finite", trainer.global_step - 1)

    def _tell(self, trainer: Trainer, pl_module: LightningModule, what: str, step: int) -> None:
        self._told = True
        rates = ", ".join(
            f"{group.get('name', i)} {group['lr']:.4g}" for i, group in enumerate(trainer.optimizers[0].param_groups)
        )
        text = (
            f"Expected a finite loss and weights, but got {what} in epoch {trainer.current_epoch + 1}, step {step}. "
            f"Learning rates: {rates}."
        )
        if not isinstance(trainer.strategy, SHARDED):  # of which all processes would have to look together
            text = f"{text} {where_it_begins(pl_module, self._batch)}"
        if self.action == "stop":
            raise NotFiniteError(
                f"{text} No checkpoint holds it. A smaller --model.optimizer.lr, --trainer.gradient_clip_val "
                "1 or a warmup may help; to go on all the same, add callbacks.TerminateOnNaN with `action: warn` to "
                "trainer.callbacks."
            )
        rank_zero_warn(text)


def where_it_begins(pl_module: LightningModule, batch: Any) -> str:
    """Return in a sentence which layers are the first, in the order of the forward pass, to have non-finite values.

    Args:
        pl_module: Its ``network`` is run once more, in evaluation, and left as it is.
        batch: Images, or a tuple that begins with them.
    """
    network = network_of(pl_module)
    spoilt = [name for name, parameter in network.named_parameters() if not _finite(parameter)]
    spoilt += [name for name, buffer in network.named_buffers() if buffer.is_floating_point() and not _finite(buffer)]
    if spoilt:
        return f"NaN or infinite are {_some(spoilt)}: the gradients of that step, or of one before, made them so."
    outputs: list[str] = []

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not _finite(output):
            outputs.append(name or type(module).__name__)

    layers = {name: layer for name, layer in network.named_modules() if not list(layer.children())}
    modes = {module: module.training for module in pl_module.modules()}
    try:
        pl_module.eval()
        with torch.no_grad(), hooked(layers, keep):
            pl_module(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if outputs:
        return f"All weights are finite; the outputs of {_some(outputs)} are not, for the images of the last batch."
    return "All weights and layers' outputs are finite for the images of the last batch: the loss itself is not."


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
