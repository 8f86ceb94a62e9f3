"""What all callbacks that draw have in common: when they look, and a thread that draws while training goes on."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.loggers import Log, warn_if_blind

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
MOST_WAITING = 64  # drawings; more would fill memory with what a slow disk cannot take


class Watcher(Callback):
    """A callback that gathers in its hooks, and draws in a thread of its own: ``draw`` is to be overridden.

    It looks at each n-th epoch, and at the last. What ``draw`` raises is told in a warning, and training goes on.

    Args:
        every_n_epochs: Look at each n-th epoch.
    """

    takes: tuple[str, ...] = ("images",)  # what a logger must be able to take; see ``warn_if_blind``
    needs_network = False  # all of it, in the process of rank zero

    def __init__(self, every_n_epochs: PositiveInt = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_if_blind(trainer, self, self.takes)
            if self.needs_network and is_sharded(trainer):
                rank_zero_warn(
                    f"{type(self).__name__} looks at the whole network, of which each process has but a part under "
                    f"{type(trainer.strategy).__name__}. Nothing of it is logged."
                )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        finish_drawing(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        finish_drawing(trainer)

    def due(self, trainer: Trainer) -> bool:
        """Tell whether to look now: in ``validate`` and ``test`` always, in the sanity check never."""
        if trainer.sanity_checking or (self.needs_network and is_sharded(trainer)):
            return False
        epoch = trainer.current_epoch + 1
        return trainer.state.fn != TrainerFn.FITTING or not epoch % self.every_n_epochs or epoch == trainer.max_epochs

    def draw_later(self, trainer: Trainer, *gathered: Any) -> None:
        """Have ``draw`` called with a log of this moment and what was gathered, all of it on the CPU."""
        if trainer not in _threads:
            _threads[trainer] = _Thread()
        _threads[trainer].submit(type(self).__name__, self.draw, Log(trainer), *gathered)

    def draw(self, log: Log, *gathered: Any) -> None:
        """Draw and log; not in the thread that trains, so without a look at module or trainer."""
        raise NotImplementedError


def is_sharded(trainer: Trainer) -> bool:
    """Tell whether each process has but a part of the network."""
    return isinstance(trainer.strategy, SHARDED)


def finish_drawing(trainer: Trainer) -> None:
    """Wait until all that was given to draw is drawn."""
    if thread := _threads.pop(trainer, None):
        thread.finish()


class _Thread:
    """Draws for all callbacks of a trainer, one after the other."""

    def __init__(self) -> None:
        # with threads of its own below this one, OpenMP would make those of training wait longer for one another
        count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "drawing", torch.set_num_threads, (1,))
        self._pool.submit(torch.get_num_threads).result()
        torch.set_num_threads(count)  # what was set there holds there, and for threads that begin later
        self._waiting: deque[tuple[str, Future]] = deque()

    def submit(self, name: str, draw: Callable[..., None], *args: Any) -> None:
        while self._waiting and (self._waiting[0][1].done() or len(self._waiting) >= MOST_WAITING):
            self._collect()
        self._waiting.append((name, self._pool.submit(draw, *args)))

    def finish(self) -> None:
        while self._waiting:
            self._collect()
        self._pool.shutdown()

    def _collect(self) -> None:
        name, future = self._waiting.popleft()
        if error := future.exception():
            rank_zero_warn(f"{name} could not draw: {type(error).__name__}: {error}. Training goes on.")


_threads: WeakKeyDictionary[Trainer, _Thread] = WeakKeyDictionary()
