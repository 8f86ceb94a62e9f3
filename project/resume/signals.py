"""Handle Ctrl-C, SIGTERM and SIGHUP: stop training after the current step with a checkpoint, other commands at once."""

import errno
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.finite_loss import NotFiniteError
from project.resume.ranks import world_size

SIGNALS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
REPEATED = 1.0  # seconds; `timeout` and similar programs send a signal both to a process and to its group
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota exceeded, file size limit
INTERVAL = 10  # batches between all-reduces of whether to stop


class Stopped(BaseException):
    """A signal ended a command.

    Args:
        number: Number of the signal. The exit code is 128 + number, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class GracefulShutdown(Callback):
    """Context manager that handles signals, and callback that stops training after a step.

    A signal that is ignored at the start, such as by nohup or in a background job of a shell script, stays ignored.

    In training, Lightning's own handler of SIGTERM finishes the step, and raises after it. It is called only where a
    run can be resumed exactly: after an optimizer step, and after a validation, not before it, because the resumed run
    would skip that validation.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._signal_time = 0.0
        self._training = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._end_step: Any = None

    def __enter__(self) -> "GracefulShutdown":
        if threading.current_thread() is threading.main_thread():  # only the main thread can set handlers
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        is_full = isinstance(error, OSError) and error.errno in FULL  # no checkpoint was written
        # also for other exceptions: the signal may have ended a DataLoader worker first
        if self.number is not None and error is not None and not is_full and not isinstance(error, NotFiniteError):
            raise Stopped(self.number) from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True
        if self._before:  # Lightning has set its own handler, which would stop within a validation
            handler = self._handle if signal.SIGTERM in self._before else signal.SIG_IGN
            self._end_step = signal.signal(signal.SIGTERM, handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self.number is not None
        if trainer.world_size > 1:  # the first end of an optimizer step after each INTERVAL
            due = (batch_idx + 1) % INTERVAL < trainer.accumulate_grad_batches
        if trainer.is_last_batch or not due:
            return
        loop: Any = trainer.fit_loop
        if not is_within_step(trainer) and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._stop_if_signalled(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._training and not trainer.is_last_batch and not is_within_step(trainer):
            self._stop_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 != trainer.max_epochs:  # otherwise, training ends now
            self._stop_if_signalled(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._training = False
        if signal.SIGINT in self._before:  # Lightning ignores further signals after the first one
            signal.signal(signal.SIGINT, self._handle)

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        """Call Lightning's handler, which raises after this step, validation or epoch."""
        if self._end_step is None:
            return
        stop = self.number is not None
        if trainer.world_size > 1:  # all ranks stop after the same step, whichever received the signal
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.number = self.number or signal.SIGTERM
            self._end_step(signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked DataLoader worker; its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        timestamp, is_single = time.monotonic(), world_size() == 1  # Lightning sends SIGTERM to other ranks
        if self.number is not None:  # Lightning calls this handler without a frame when it stops
            if number == signal.SIGINT or (is_single and frame and timestamp - self._signal_time > REPEATED):
                print("\nStopped at once.", file=sys.stderr, flush=True)
                os._exit(128 + number)
            return
        self.number, self._signal_time = number, timestamp
        if not self._training:
            raise KeyboardInterrupt
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = f"; {name} again stops at once" if is_single or number == signal.SIGINT else ""
        try:
            print(f"\nStopping after this step or validation{again}.", file=sys.stderr, flush=True)
        except OSError:  # the terminal is closed, so the progress bar would fail too
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)


def is_within_step(trainer: Trainer) -> bool:
    """Return whether gradients of some batches are accumulated for an optimizer step that is not complete."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return not trainer.is_last_batch and batches % trainer.accumulate_grad_batches != 0
