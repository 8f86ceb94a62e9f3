"""Statistics of weights, gradients and updates of one step, gathered once for all callbacks that look at them."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

from callbacks.base.drawing import DrawingCallback
from callbacks.tools.histogram import TensorStatistics, gather_later
from callbacks.tools.layers import network_of

Found = dict[str, TensorStatistics]


class Step:
    """One optimizer step, by the names of the network's parameters, in their order.

    What is on a device is counted there at once, and transferred when it is first read; what is on the CPU was copied,
    and is counted when it is first read: in the thread that draws, so that neither holds training up.
    """

    @torch.no_grad()
    def __init__(self, number: int, pl_module: LightningModule) -> None:
        self.number = number  # from 0
        self._parameters = dict(network_of(pl_module).named_parameters())
        self.dimensions = {name: parameter.ndim for name, parameter in self._parameters.items()}
        self._before = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        self._moving = list(gradients)
        copies = {name: one.clone() if one.device.type == "cpu" else one for name, one in gradients.items()}
        self._weights, self._gradients = gather_later(self._before), gather_later(copies)
        self._updates: Callable[[], Found] | None = None

    @torch.no_grad()
    def finish(self) -> None:
        """See what the step did; the first call counts."""
        if self._updates is None:
            updates = {name: self._parameters[name].detach() - self._before[name] for name in self._moving}
            self._updates = gather_later(updates)
            self._parameters, self._before = {}, {}

    @property
    def weights(self) -> Found:
        """Those that the gradients belong to, before the step changes them."""
        return self._weights()

    @property
    def gradients(self) -> Found:
        """Those of the whole step: accumulated, unscaled, before clipping; of parameters that have one."""
        return self._gradients()

    @property
    def updates(self) -> Found:
        """What the step added to the weights that have a gradient."""
        return {} if self._updates is None else self._updates()


class StepCallback(DrawingCallback):
    """A callback that looks at one step of an epoch: ``show`` is to be overridden.

    It is the one in the middle: at the end of an epoch, schedules have often brought the learning rate to nothing. For
    that step, a second copy of the weights is held. By default a step is given to ``draw``.
    """

    required_media = ("histograms",)
    needs_network = True
    _waiting = False
    _step: Step | None = None

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """Look at a step; called on rank zero."""
        self.draw_later(trainer, step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._waiting = trainer.is_global_zero and not self.sharded and self.due(trainer)

    on_train_start = on_train_epoch_start  # an epoch that a run is resumed in does not start

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._waiting:
            return
        past_middle = 2 * (trainer.fit_loop.batch_idx + 1) >= trainer.num_training_batches
        if not (past_middle or trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps):
            return
        self._waiting = False
        current = _steps.get(trainer)
        if current is None or current.number != trainer.global_step:
            current = _steps[trainer] = Step(trainer.global_step, pl_module)
        self._step = current

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._step is None:
            return
        step, self._step = self._step, None
        _steps.pop(trainer, None)  # all that look at it hold it by now; kept, its copies would fill memory
        step.finish()
        self.on_step(trainer, step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._step = None
        _steps.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)


_steps: WeakKeyDictionary[Trainer, Step] = WeakKeyDictionary()
