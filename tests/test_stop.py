"""Signals, outside training."""

import logging
import os
import signal
from typing import Any, NoReturn

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from project.stop import Stopped, Stopper
from project.telling import told_shortly


class InterruptTwice(Callback):
    """Press Ctrl-C in a validation, and again while it ends."""

    def on_validation_batch_end(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def on_exception(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class EndedAtOnce(BaseException):
    """In the place of the process's end."""


def trainer(stopper: Stopper, *more: Callback) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(callbacks=[stopper, *more], **quiet)


def test_a_second_ctrl_c_ends_a_validation_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = []

    def leave(code: int) -> NoReturn:
        codes.append(code)
        raise EndedAtOnce

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Stopped) as info, Stopper() as stopper:
        trainer(stopper, InterruptTwice()).validate(BoringModel(), verbose=False)
    assert codes == [130]
    assert info.value.exit_code == 130
    assert "Stopped at once." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_validation(number: int) -> None:
    class Interrupt(Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as info, Stopper() as stopper:
        trainer(stopper, Interrupt()).validate(BoringModel(), verbose=False)
    assert info.value.exit_code == 128 + number
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_not_told_as_sigterm(number: int, caplog: pytest.LogCaptureFixture) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: BoringModel, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                os.kill(os.getpid(), number)

    stopper = Stopper()
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as info, told_shortly(["fit"]), stopper:
        trainer(stopper, Interrupt()).fit(BoringModel())
    assert info.value.code == 128 + number
    assert ("Received SIGTERM" in caplog.text) == (number == signal.SIGTERM)
