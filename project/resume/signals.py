"""Stop training after a whole step, with a checkpoint, at Ctrl-C, SIGTERM or SIGHUP; stop other commands at once."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.finite_loss import NotFiniteError
from project.errors import DiskFullError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REPEATED = 1.0  # seconds; `timeout` and the like send one request both to a process and to its group
OFTEN = 10  # steps after which several devices ask one another whether to stop


class Stopped(BaseException):
    """A signal ended a command.

    Args:
        number: Of the signal; a shell knows a process that it ended by the exit code of 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class GracefulShutdown(Callback):
    """Handles signals while it is entered as a context manager, and knows as a callback whether a step is running.

    A signal that is ignored at the start, as by nohup or in a shell script's background job, stays ignored.

    In training, Lightning's own handler of SIGTERM lets a step end, and raises behind it. It is called only where a run
    can go on exactly: not before a validation, which would be neither done nor to be done again, but behind it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._asked = 0.0  # when the signal came
        self._training = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._end_step: Any = None

    def __enter__(self) -> "GracefulShutdown":
        if threading.current_thread() is threading.main_thread():  # Python allows no other to set handlers
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # whatever else it is: workers may have met the signal first
        if self.number is not None and error is not None and not isinstance(error, DiskFullError | NotFiniteError):
            raise Stopped(self.number) from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True
        if self._before:  # Lightning's handler, by now in place, would let a validation end in its middle
            handler = self._handle if signal.SIGTERM in self._before else signal.SIG_IGN
            self._end_step = signal.signal(signal.SIGTERM, handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or (self.number is None if trainer.world_size == 1 else (batch_idx + 1) % OFTEN):
            return
        loop: Any = trainer.fit_loop
        if not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._training and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 != trainer.max_epochs:  # which is the end anyway
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._training = False
        if signal.SIGINT in self._before:  # or Lightning would be deaf to a second one, once the first has ended a test
            signal.signal(signal.SIGINT, self._handle)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        """Have Lightning raise, once it is through with this step, validation or epoch."""
        if self._end_step is None:
            return
        stop = self.number is not None
        if trainer.world_size > 1:  # all devices behind the same step, whichever has got the signal
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.number = self.number or signal.SIGTERM
            self._end_step(signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that loads images, forked: its process says when it is to end
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        now, alone = time.monotonic(), world_size() == 1  # of several, Lightning itself sends SIGTERM to some
        if self.number is not None:  # when it stops, Lightning calls this handler without a frame
            if number == signal.SIGINT or (alone and frame and now - self._asked > REPEATED):
                print("\nStopped at once.", file=sys.stderr, flush=True)
                os._exit(128 + number)
            return
        self.number, self._asked = number, now
        if not self._training:
            raise KeyboardInterrupt
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = f"; {name} again stops at once" if alone or number == signal.SIGINT else ""
        try:
            print(f"\nStopping after this step or validation{again}.", file=sys.stderr, flush=True)
        except OSError:  # the terminal is closed: the progress bar would fail, too
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)


def world_size() -> int:
    """Return the number of processes that train together, before there is a trainer to ask or after it is gone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1))
