"""Statistics of weights, gradients and updates of one step, gathered once for all callbacks that look at them."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from callbacks.gather import TensorStatistics, count, network_of, unpack
from callbacks.watcher import Watcher


class Step(NamedTuple):
    """One optimizer step, by the names of the network's parameters, in their order.

    Gradients are those of the whole step: accumulated, unscaled, before clipping. Weights are those that the gradients
    belong to, before the step changes them.
    """

    number: int  # from 0
    dimensions: dict[str, int]  # of each parameter
    weights: dict[str, TensorStatistics]
    gradients: dict[str, TensorStatistics]  # of those that have one
    updates: dict[str, TensorStatistics]  # of the same: what the step added to the weights


class StepWatcher(Watcher):
    """A callback that looks at one step of an epoch: ``show`` is to be overridden.

    It is the one in the middle: at the end of an epoch, schedules have often brought the learning rate to nothing. For
    that step, a second copy of the weights is held. What is known of it is transferred to the CPU at once.
    """

    takes = ("histograms",)
    _waiting = False
    _gathering: "_Gathering | None" = None

    def show(self, trainer: Trainer, step: Step) -> None:
        """Look at a step; called on rank zero."""
        raise NotImplementedError

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._waiting = trainer.is_global_zero and self.due(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._waiting:
            return
        past_middle = 2 * (trainer.fit_loop.batch_idx + 1) >= trainer.num_training_batches
        if not (past_middle or trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps):
            return
        self._waiting = False
        current = _gatherings.get(trainer)
        if current is None or current.number != trainer.global_step:
            current = _gatherings[trainer] = _Gathering(trainer.global_step, pl_module)
        self._gathering = current

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._gathering is None:
            return
        gathering, self._gathering = self._gathering, None
        self.show(trainer, gathering.finish())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._gathering = None
        _gatherings.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)


class _Gathering:
    """Counts weights and gradients now, and updates once ``finish`` is called, behind the step."""

    @torch.no_grad()
    def __init__(self, number: int, pl_module: LightningModule) -> None:
        self.number = number
        self._parameters = dict(network_of(pl_module).named_parameters())
        self._with_gradient = {name: p for name, p in self._parameters.items() if p.grad is not None}
        gradients: list[Tensor] = [p.grad for p in self._with_gradient.values() if p.grad is not None]
        self._before = count([*self._parameters.values(), *gradients])
        self._weights = [parameter.detach().clone() for parameter in self._with_gradient.values()]
        self._step: Step | None = None

    @torch.no_grad()
    def finish(self) -> Step:
        if self._step is None:
            pairs = zip(self._with_gradient.values(), self._weights, strict=True)
            updates = [after - before for after, before in pairs]
            self._weights.clear()
            both = torch.cat([self._before, count(updates)]) if updates else self._before
            names = [f"0{name}" for name in self._parameters]
            names += [f"{kind}{name}" for kind in (1, 2) for name in self._with_gradient]
            found = unpack(names, both)
            parts = [{name[1:]: one for name, one in found.items() if name[0] == kind} for kind in "012"]
            dimensions = {name: parameter.ndim for name, parameter in self._parameters.items()}
            self._step = Step(self.number, dimensions, *parts)
        return self._step


_gatherings: WeakKeyDictionary[Trainer, _Gathering] = WeakKeyDictionary()
