"""Collect statistics of weights, gradients and updates of one step once for all callbacks that use them."""

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from callbacks.base.drawing import DrawingCallback
from callbacks.tools.histogram import Histogram, gather_later
from callbacks.tools.layers import network_of


class Step:
    """Statistics of one optimizer step, by parameter name and in the network's order.

    Tensors on a device are counted there immediately and transferred on first access. Tensors on the CPU are copied and
    counted on first access. Neither blocks training.

    Attributes:
        number: Number of the step, from 0.
        dimensions: Number of dimensions of each parameter.
        weights: Returns the histograms of the weights before the step.
        gradients: Returns those of the gradients of the whole step: accumulated, unscaled, before clipping.
        updates: Returns those of the changes by the step of weights that have a gradient.
    """

    @torch.no_grad()
    def __init__(self, number: int, pl_module: LightningModule) -> None:
        self.number = number
        self._parameters = dict(network_of(pl_module).named_parameters())
        self.dimensions = {name: parameter.ndim for name, parameter in self._parameters.items()}
        self._before = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        self._moving = list(gradients)
        copies = {name: grad.clone() if grad.device.type == "cpu" else grad for name, grad in gradients.items()}
        self.weights, self.gradients = gather_later(self._before), gather_later(copies)
        self.updates: Callable[[], dict[str, Histogram]] = gather_later({})

    @property
    def layers(self) -> list[str]:
        """The parameters of two or more dimensions that have a gradient; all that have one if there are none.

        Norms and biases, half of all parameters, have gradients and updates of other magnitudes.
        """
        return [name for name in self._moving if self.dimensions[name] > 1] or self._moving

    def update_ratio(self, name: str) -> float:
        """Return the root mean square of a parameter's update, divided by that of the parameter; NaN if that is 0."""
        return self.updates()[name].rms / (self.weights()[name].rms or math.nan)

    @torch.no_grad()
    def finish(self) -> None:
        """Compute the updates after the step; only the first call has an effect."""
        if self._before:
            updates = {name: self._parameters[name].detach() - self._before[name] for name in self._moving}
            self.updates = gather_later(updates)
            self._parameters, self._before = {}, {}


class StepCallback(DrawingCallback):
    """Use the statistics of one step per epoch; subclasses override ``draw(log, step)``.

    It is the middle step, because at the end of an epoch schedules have often reduced the learning rate to zero. A
    second copy of the weights is held during that step.
    """

    needs_network = True
    _waiting = False
    _step: Step | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._waiting = trainer.is_global_zero and self.due(trainer)

    on_train_start = on_train_epoch_start  # an epoch within which a run resumes does not call on_train_epoch_start

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._waiting:
            return
        past_middle = 2 * (trainer.fit_loop.batch_idx + 1) >= trainer.num_training_batches
        if not (past_middle or trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps):
            return
        self._waiting = False
        self._step = _steps.get(trainer)
        if self._step is None or self._step.number != trainer.global_step:
            self._step = _steps[trainer] = Step(trainer.global_step, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._step is None:
            return
        step, self._step = self._step, None
        _steps.pop(trainer, None)  # all callbacks have a reference by now; another one would keep its copies in memory
        step.finish()
        self.use(trainer, step)

    def use(self, trainer: Trainer, step: Step) -> None:
        """Use the statistics now, in training; by default, ``draw`` uses them, later on an accelerator."""
        self.draw_later(trainer, step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._step = None
        _steps.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)


_steps: WeakKeyDictionary[Trainer, Step] = WeakKeyDictionary()
