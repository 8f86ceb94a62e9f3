"""Signals, mostly outside training."""

import logging
import os
import pty
import signal
import sys
from typing import Any, NoReturn
from unittest.mock import MagicMock

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from project.cli.error_handling import report_errors
from project.resume.signals import GracefulShutdown, Stopped


class InterruptTwice(Callback):
    """Press Ctrl-C in a validation, and again while it ends."""

    def on_validation_batch_end(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def on_exception(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class EndedAtOnce(BaseException):
    """Raised instead of ending the process."""


class SignalAt(Callback):
    """Send a signal to this process in some training steps; a step may be given several times."""

    def __init__(self, number: int, *steps: int) -> None:
        self.number, self.steps = number, steps

    def on_train_batch_start(self, trainer: Trainer, pl_module: BoringModel, batch: Any, batch_idx: int) -> None:
        for _ in range(self.steps.count(batch_idx)):
            os.kill(os.getpid(), self.number)


def trainer(stopper: GracefulShutdown, *more: Callback, **options: int) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", callbacks=[stopper, *more], max_steps=4, **quiet, **options)


def test_a_second_ctrl_c_ends_a_validation_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = []

    def leave(code: int) -> NoReturn:
        codes.append(code)
        raise EndedAtOnce

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Stopped) as info, GracefulShutdown() as stopper:
        trainer(stopper, InterruptTwice()).validate(BoringModel(), verbose=False)
    assert codes == [130]
    assert info.value.exit_code == 130
    assert "Stopped at once." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_validation(number: int) -> None:
    class Interrupt(Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as info, GracefulShutdown() as stopper:
        trainer(stopper, Interrupt()).validate(BoringModel(), verbose=False)
    assert info.value.exit_code == 128 + number
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_lightning_does_not_report_sigterm_for_ctrl_c(caplog: pytest.LogCaptureFixture) -> None:
    stopper = GracefulShutdown()
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit, match="130"), report_errors(["fit"]), stopper:
        trainer(stopper, SignalAt(signal.SIGINT, 2)).fit(BoringModel())
    assert "Received SIGTERM" not in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with GracefulShutdown() as stopper:
            trainer(stopper, SignalAt(number, 2)).fit(BoringModel())
        assert stopper.number is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(("pause", "ended"), [(0.0, True), (60.0, False)])
def test_a_second_sigterm_ends_at_once_unless_it_is_of_the_same_moment(
    pause: float, ended: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(code: int) -> NoReturn:
        raise EndedAtOnce(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("project.resume.signals.REPEATED", pause)
    with pytest.raises(Stopped) as info, GracefulShutdown() as stopper:
        trainer(stopper, SignalAt(signal.SIGTERM, 2, 2)).fit(BoringModel())
    assert isinstance(info.value.__cause__, EndedAtOnce) == ended
    assert info.value.exit_code == 143
    assert "Stopping after this step or validation; SIGTERM again stops at once." in capsys.readouterr().err


def test_a_closed_terminal_stops_training_after_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, end = pty.openpty()
    silenced, dup2 = [], os.dup2
    monkeypatch.setattr(os, "dup2", lambda null, file: silenced.append(file) or dup2(null, end))
    with open(end, "w") as closed:
        os.close(terminal)
        monkeypatch.setattr(sys, "stderr", closed)
        with pytest.raises(Stopped) as info, GracefulShutdown() as stopper:
            (run := trainer(stopper, SignalAt(signal.SIGHUP, 2))).fit(BoringModel())
        monkeypatch.undo()
    assert info.value.exit_code == 129
    assert run.global_step == 3
    assert silenced == [1, 2]


@pytest.mark.parametrize(("accumulate", "asked"), [(1, [10, 20, 30, 40]), (4, [12, 20, 32, 40]), (15, [15, 30])])
def test_several_ranks_may_stop_after_the_first_optimizer_step_of_each_ten_batches(
    accumulate: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, stopper = [], GracefulShutdown()
    ranks = MagicMock(is_last_batch=False, world_size=2, accumulate_grad_batches=accumulate)
    progress = ranks.fit_loop.epoch_loop.batch_progress.current
    ranks.fit_loop.epoch_loop._should_check_val_fx.return_value = False
    monkeypatch.setattr(stopper, "_stop_if_signalled", lambda trainer: seen.append(progress.ready))
    for progress.ready in range(1, 42):
        stopper.on_train_batch_end(ranks, BoringModel(), None, None, progress.ready - 1)
    assert seen == asked
