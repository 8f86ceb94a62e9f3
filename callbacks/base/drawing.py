"""What all callbacks that draw have in common: when they look, and a thread that draws while training goes on."""

import math
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
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.base.log import LogSnapshot, warn_of_skipped

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)
MOST_WAITING = 64  # drawings; more would fill memory with what a slow disk cannot take


class DrawingCallback(Callback):
    """A callback that gathers in its hooks, and draws in a thread of its own: ``draw`` is to be overridden.

    It looks at each n-th epoch, and at the last that ``max_epochs`` or ``max_steps`` plans. Of a run that ``max_time``
    ends, it sees the validation at the end; ``EarlyStopping`` decides only behind one. Where there is no validation in
    each epoch (``check_val_every_n_epoch``), what looks in validation looks in the first behind each n-th epoch. What
    ``draw`` raises is told in a warning, and training goes on.

    Args:
        every_n_epochs: Look at each n-th epoch.
    """

    required_media: tuple[str, ...] = ("images",)  # what a logger must be able to take; see ``warn_of_skipped``
    needs_network = False  # all of it in one process; what does is switched off where strategies cut it into shards
    sharded = False

    def __init__(self, every_n_epochs: PositiveInt = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_of_skipped(trainer, self, self.required_media)
            self.sharded = self.needs_network and isinstance(trainer.strategy, SHARDED)
            needing = [one for one in trainer.callbacks if isinstance(one, DrawingCallback) and one.needs_network]  # type: ignore[attr-defined]  # set elsewhere in Lightning
            if self.sharded and self is needing[0]:
                rank_zero_warn(
                    "A process has but a part of the network under "
                    f"{type(trainer.strategy).__name__}. Nothing is logged of "
                    f"{', '.join(type(one).__name__ for one in needing)}, which need all of it."
                )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Lightning lets no second Ctrl-C through, so that nobody could end a long wait
        finish_drawing(trainer, at_once=isinstance(exception, (KeyboardInterrupt, SIGTERMException)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        finish_drawing(trainer)

    def due(self, trainer: Trainer) -> bool:
        """Tell whether to look now: in ``validate`` and ``test`` always, in the sanity check never."""
        if trainer.sanity_checking or self.sharded:
            return False
        if trainer.state.fn != TrainerFn.FITTING or trainer.should_stop:
            return True
        epoch, pause = trainer.current_epoch + 1, 1
        if trainer.validating:
            pause = trainer.check_val_every_n_epoch or 1
        if epoch // self.every_n_epochs > (epoch - pause) // self.every_n_epochs:
            return True
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)  # NaN of a stream without an end
        planned = (trainer.max_epochs or -1, trainer.max_steps / steps)  # less than 0 for no limit
        end = min((epochs for epochs in planned if epochs >= 0), default=math.inf)
        return end < epoch + pause if trainer.validating else end <= epoch

    def draw_later(self, trainer: Trainer, *gathered: Any) -> None:
        """Have ``draw`` called with a log of this moment and what was gathered, all of it on the CPU."""
        if trainer not in _threads:
            _threads[trainer] = _Thread()
        _threads[trainer].submit(type(self).__name__, self.draw, LogSnapshot(trainer), *gathered)

    def draw(self, log: LogSnapshot, *gathered: Any) -> None:
        """Draw and log; not in the thread that trains, so without a look at module or trainer."""
        raise NotImplementedError


def finish_drawing(trainer: Trainer, at_once: bool = False) -> None:
    """Wait until all that was given to draw is drawn, or, at once, only what is being drawn just now."""
    if thread := _threads.pop(trainer, None):
        thread.finish(at_once)


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

    def finish(self, at_once: bool) -> None:
        if at_once:
            waiting = len(self._waiting)
            self._waiting = deque(one for one in self._waiting if not one[1].cancel())
            if left_out := waiting - len(self._waiting):
                rank_zero_warn(f"{left_out} drawings that were waiting are left out, for the run was interrupted.")
        while self._waiting:
            self._collect()
        self._pool.shutdown()

    def _collect(self) -> None:
        name, future = self._waiting.popleft()
        if error := future.exception():
            rank_zero_warn(f"{name} could not draw: {type(error).__name__}: {error}. Training goes on.")


_threads: WeakKeyDictionary[Trainer, _Thread] = WeakKeyDictionary()
