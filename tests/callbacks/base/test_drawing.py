"""The thread that draws: it may be slow or fail, and training goes on."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from watching import events, fit

import callbacks.base.drawing
from callbacks import EMA, ConfusionMatrix, ConvolutionKernels, GradCAM, Histograms, NetworkGraph, TrainingBatch
from callbacks.base.drawing import DrawingCallback
from callbacks.base.log import LogSnapshot
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Draws(DrawingCallback):
    """Hand over a number in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []
        self.threads: set[threading.Thread] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.draw_later(trainer, trainer.global_step)

    def draw(self, log: LogSnapshot, number: int) -> None:
        assert log.step == number
        assert torch.get_num_threads() == 1
        self.threads.add(threading.current_thread())
        self.drawn.append(number)


class Looks(DrawingCallback):
    """Note the epochs that are looked at."""

    def __init__(self, every_n_epochs: int) -> None:
        super().__init__(every_n_epochs)
        self.validated: list[int] = []
        self.trained: list[int] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated += [trainer.current_epoch + 1] if self.due(trainer) else []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained += [trainer.current_epoch + 1] if self.due(trainer) else []


def test_everything_is_drawn_in_order_in_another_thread(make_classifier: Make, tmp_path: Path) -> None:
    watcher, threads = Draws(), torch.get_num_threads()
    fit(make_classifier(), tmp_path, [watcher], epochs=4)
    assert torch.get_num_threads() == threads
    assert watcher.drawn == list(range(1, 13))
    assert watcher.threads
    assert threading.current_thread() not in watcher.threads
    assert not any(thread.is_alive() for thread in watcher.threads)


def test_training_waits_only_when_too_much_is_waiting(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks.base.drawing, "MOST_WAITING", 2)
    ahead = []

    class Slow(Draws):
        given = 0

        def draw(self, log: LogSnapshot, number: int) -> None:
            ahead.append(self.given - number)
            threading.Event().wait(0.02)

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.given = trainer.global_step
            super().on_train_batch_end(trainer, pl_module)

    fit(make_classifier(), tmp_path, [Slow()], epochs=4)
    assert len(ahead) == 12
    assert max(ahead) <= 3


def test_what_cannot_be_drawn_is_told_and_training_goes_on(make_classifier: Make, tmp_path: Path) -> None:
    class Broken(Draws):
        def draw(self, log: LogSnapshot, number: int) -> None:
            raise ValueError(f"no picture {number}")

    with pytest.warns(UserWarning, match=r"Broken could not draw: ValueError: no picture 1\. Training goes on\."):
        trainer = fit(make_classifier(), tmp_path, [Broken(), ConfusionMatrix()], epochs=1)
    assert trainer.global_step == 3
    assert "confusion_matrix/val" in events(tmp_path).Tags()["images"]


def test_pictures_of_a_run_that_fails_are_all_there(make_classifier: Make, tmp_path: Path) -> None:
    class Fails(Draws):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(make_classifier(), tmp_path, [Fails(), TrainingBatch(every_n_epochs=1), ConfusionMatrix()], epochs=3)
    found = events(tmp_path)
    assert [event.step for event in found.Images("training_batch")] == [0, 3]
    assert [event.step for event in found.Images("confusion_matrix/val")] == [3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drawing")]


def test_an_interrupted_run_waits_only_for_what_is_being_drawn(make_classifier: Make, tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    class Slow(Draws):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module)
            if trainer.global_step == 5:
                begun.wait()
                threading.Timer(0.5, release.set).start()
                raise KeyboardInterrupt

        def draw(self, log: LogSnapshot, number: int) -> None:
            begun.set()
            release.wait()
            super().draw(log, number)

    watcher = Slow()
    with pytest.warns(UserWarning, match="4 drawings that were waiting are left out"), pytest.raises(SystemExit):
        fit(make_classifier(), tmp_path, [watcher], epochs=3)
    assert watcher.drawn == [1]
    assert not any(thread.is_alive() for thread in watcher.threads)


@pytest.mark.parametrize(
    ("options", "validated", "trained"),
    [
        ({"epochs": 9, "check_val_every_n_epoch": 2}, [6, 8], [5, 9]),
        ({"epochs": -1, "max_steps": 9}, [3], [3]),
        ({"epochs": -1, "max_steps": 8}, [2], [3]),  # it ends before the third validation
        ({"epochs": 20, "max_steps": 16, "accumulate_grad_batches": 2}, [5, 8], [5, 8]),
    ],
    ids=str,
)
def test_an_epoch_of_the_cadence_and_the_last_that_is_planned_are_looked_at(
    make_classifier: Make, tmp_path: Path, options: dict[str, Any], validated: list[int], trained: list[int]
) -> None:
    watcher = Looks(every_n_epochs=5)
    fit(make_classifier(), tmp_path, [watcher], **options)
    assert (watcher.validated, watcher.trained) == (validated, trained)


def test_the_validation_at_the_end_of_the_time_is_looked_at(make_classifier: Make, tmp_path: Path) -> None:
    class TimeIsUp(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            trainer.should_stop = trainer.global_step == 4  # as Timer does

    watcher = Looks(every_n_epochs=5)
    fit(make_classifier(), tmp_path, [TimeIsUp(), watcher], epochs=9)
    assert watcher.validated == [2]


def test_what_needs_the_whole_network_is_left_out_where_it_is_sharded(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(callbacks.base.drawing, "SHARDED", (SingleDeviceStrategy,))
    watching = [NetworkGraph(), Histograms(), ConvolutionKernels(every_n_epochs=1), GradCAM(), ConfusionMatrix()]
    fit(make_classifier(), tmp_path, watching)
    (told,) = (str(one.message) for one in recwarn if "part of the network" in str(one.message))
    assert "SingleDeviceStrategy. Nothing is logged of NetworkGraph, Histograms, ConvolutionKernels, GradCAM," in told
    tags = events(tmp_path).Tags()
    assert tags["images"] == ["confusion_matrix/val", "confusion_matrix_normalised/val"]
    assert not tags["graph"]
    assert not tags["histograms"]


def test_histograms_without_tensorboard_are_told_once_and_cost_nothing_more(
    make_classifier: Make, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    fit(make_classifier(), tmp_path, [Histograms()], epochs=2, logger=CSVLogger(tmp_path))
    told = [str(one.message) for one in recwarn if "Histograms" in str(one.message)]
    assert told == ["Histograms draws for TensorBoard, but the loggers are: CSVLogger. Nothing of it is logged."]


def test_pictures_say_which_weights_they_show(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: dict[str, str] = {}

    class Says(DrawingCallback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            moments["training"] = LogSnapshot(trainer).moment

        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            moments["validation"] = LogSnapshot(trainer).moment
            self.weight = pl_module.network.fc3.bias.detach().clone()

    watcher, average = Says(), EMA(decay=0.5)
    module = make_classifier()
    fit(module, tmp_path / "1", [watcher, average], epochs=1)
    assert moments == {"training": "epoch 1, trained weights", "validation": "epoch 1, averaged weights"}
    assert average._average_model is not None
    assert torch.equal(watcher.weight, average._average_model.module.network.fc3.bias)
    fit(make_classifier(), tmp_path / "2", [watcher], epochs=1)
    assert moments == {"training": "epoch 1", "validation": "epoch 1"}
