"""The base class of callbacks that draw: their schedule, and a background thread that draws while a GPU trains."""

import math
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.base.log import LogSnapshot
from callbacks.tools import SHARDED, warn_once

MOST_WAITING = 64  # maximum number of queued drawings, which limits memory use when the disk is slow
SWITCH = 1e-4  # seconds; most operations of training release Python's lock, and a drawing would keep it for 5 ms each


class DrawingCallback(Callback):
    """Collect data in hooks and draw it, beside training on an accelerator; subclasses override ``draw``.

    It runs in epochs 1, 2, 4, 8, 16, ..., or in every n-th epoch; and in the last one planned by ``max_epochs`` or
    ``max_steps``. If ``max_time`` ends a run, it runs in the final validation; ``EarlyStopping`` decides only after a
    validation. If not every epoch has a validation (``check_val_every_n_epoch``), callbacks that run in validation run
    in the first one after such an epoch. An exception in ``draw`` becomes a warning, and training continues.

    Args:
        every_n_epochs: Run in every n-th epoch and the last planned one; None for epochs 1, 2, 4, 8, ... and the last
            planned one.
    """

    needs_network = False  # whether it needs the whole network in one process
    needs_classifier = False  # whether the command line switches it off for modules other than ImageClassifier
    silent = False  # whether it logs nothing in this run

    def __init__(self, every_n_epochs: PositiveInt | None = None) -> None:
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.silent = self.needs_network and isinstance(trainer.strategy, SHARDED)
        if self.silent:
            callbacks = [item for item in trainer.callbacks if getattr(item, "needs_network", False)]  # type: ignore[attr-defined]  # set elsewhere in Lightning
            warn_once(
                f"{type(trainer.strategy).__name__} shards the network. These callbacks need it whole in one process "
                f"and log nothing: {', '.join(type(item).__name__ for item in callbacks)}."
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if thread := _threads.pop(trainer, None):
            # Lightning ignores a second Ctrl-C, so the user could not interrupt a long wait
            thread.finish(at_once=isinstance(exception, (KeyboardInterrupt, SIGTERMException)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if thread := _threads.pop(trainer, None):
            thread.finish()

    def due(self, trainer: Trainer) -> bool:
        """Return whether the callback runs now: always in ``validate`` and ``test``, never in the sanity check."""
        if trainer.sanity_checking or self.silent:
            return False
        if trainer.state.fn != TrainerFn.FITTING or trainer.should_stop:
            return True
        epoch, pause = trainer.current_epoch + 1, 1
        if trainer.validating:
            pause = trainer.check_val_every_n_epoch or 1
        if is_planned(epoch - pause, epoch, self.every_n_epochs):
            return True
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)  # NaN without a length
        planned = (trainer.max_epochs or -1, trainer.max_steps / steps)  # negative for no limit
        end = min((epochs for epochs in planned if epochs >= 0), default=math.inf)
        return end < epoch + pause if trainer.validating else end <= epoch

    def draw_later(self, trainer: Trainer, *gathered: Any) -> None:
        """Queue a call of ``draw`` with a snapshot of the loggers and the gathered data, which must be on the CPU.

        On the CPU, it is called at once. Only rank zero draws; on other ranks, it does nothing.
        """
        if not trainer.is_global_zero:
            return
        drawing = partial(attempt, type(self).__name__, self.draw, LogSnapshot(trainer), *gathered)
        if not draws_beside(trainer):
            drawing()
            return
        if trainer not in _threads:
            _threads[trainer] = _Thread()
        _threads[trainer].submit(drawing)

    def draw(self, log: LogSnapshot, *gathered: Any) -> None:
        """Draw and log; often called in a background thread, so it must not access the module or the trainer."""
        raise NotImplementedError


def is_planned(after: int, until: int, every: int | None) -> bool:
    """Return whether one of epochs ``after + 1`` to ``until`` is an n-th one; for None, one of 1, 2, 4, 8, ..."""
    return until.bit_length() > after.bit_length() if every is None else until // every > after // every


def draws_beside(trainer: Trainer) -> bool:
    """Return whether drawings run in a thread beside training.

    On the CPU, they would take longer than at once: the threads of one operation of training wait for each other, and
    while a drawing took the place of one of them, a step of LeNet on two cores took 3 to 20 times as long.
    """
    return trainer.strategy.root_device.type != "cpu"


def attempt(name: str, draw: Callable[..., None], *args: Any) -> None:
    """Draw for a callback; an exception becomes a warning."""
    try:
        draw(*args)
    except Exception as error:  # a user's drawing can raise any exception, and must not end training
        rank_zero_warn(f"{name} could not draw: {type(error).__name__}: {error}. Training continues.")


class _Thread:
    """A background thread that draws for all callbacks of a trainer, one drawing at a time."""

    def __init__(self) -> None:
        count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(1, "drawing", torch.set_num_threads, (1,))
        self._latest: Future = self._pool.submit(torch.get_num_threads)
        self._latest.result()
        torch.set_num_threads(count)  # the setting applies to that thread and to threads that start later
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        self._free = Semaphore(MOST_WAITING)

    def submit(self, drawing: Callable[[], None]) -> None:
        self._free.acquire()
        self._latest = self._pool.submit(drawing)
        self._latest.add_done_callback(lambda _: self._free.release())

    def finish(self, at_once: bool = False) -> None:
        """Wait until all queued drawings are done, or, with ``at_once``, only for the one in progress."""
        if at_once and self._latest.cancel():
            rank_zero_warn("Queued drawings were cancelled, because the run was interrupted.")
        try:
            self._pool.shutdown(cancel_futures=at_once)
        finally:  # another Ctrl-C ends the wait
            sys.setswitchinterval(self._switch)


_threads: WeakKeyDictionary[Trainer, _Thread] = WeakKeyDictionary()
