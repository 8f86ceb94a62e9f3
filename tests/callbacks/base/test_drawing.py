"""Drawing: in which epochs, and how training continues if it is slow or fails."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from watching import events, fit

import callbacks.base.drawing
from callbacks import EMA, ConfusionMatrix, ConvolutionKernels, GradCAM, Histograms, NetworkGraph, TrainingBatch
from callbacks.base.drawing import DrawingCallback, is_planned
from callbacks.base.log import LogSnapshot
from lightning_modules import ImageClassifier

Make = Callable[..., ImageClassifier]


class Draws(DrawingCallback):
    """Queue a drawing of a number in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []
        self.threads: set[threading.Thread] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.draw_later(trainer, trainer.global_step)

    def draw(self, log: LogSnapshot, number: int) -> None:
        assert log.step == number
        self.threads.add(threading.current_thread())
        self.drawn.append(number)


class Looks(DrawingCallback):
    """Record the epochs in which the callback runs."""

    def __init__(self, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)
        self.validated: list[int] = []
        self.trained: list[int] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated += [trainer.current_epoch + 1] if self.due(trainer) else []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained += [trainer.current_epoch + 1] if self.due(trainer) else []


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in a thread, as beside training on a GPU."""
    monkeypatch.setattr(callbacks.base.drawing, "draws_beside", lambda trainer: True)


@pytest.mark.usefixtures("beside")
def test_everything_is_drawn_in_order_in_another_thread(make_classifier: Make, tmp_path: Path) -> None:
    class Counts(Draws):
        def draw(self, log: LogSnapshot, number: int) -> None:
            assert torch.get_num_threads() == 1
            super().draw(log, number)

    watcher, threads = Counts(), torch.get_num_threads()
    fit(make_classifier(), tmp_path, [watcher], epochs=4)
    assert torch.get_num_threads() == threads
    assert watcher.drawn == list(range(1, 13))
    assert watcher.threads
    assert threading.current_thread() not in watcher.threads
    assert not any(thread.is_alive() for thread in watcher.threads)


def test_on_the_cpu_nothing_is_drawn_beside_training(make_classifier: Make, tmp_path: Path) -> None:
    watcher = Draws()
    fit(make_classifier(), tmp_path, [watcher], epochs=1, accelerator="cpu")
    assert watcher.drawn == [1, 2, 3]
    assert watcher.threads == {threading.current_thread()}


@pytest.mark.usefixtures("beside")
def test_training_waits_only_when_the_queue_is_full(
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


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_drawing_error_is_a_warning_and_training_continues(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_beside: bool
) -> None:
    monkeypatch.setattr(callbacks.base.drawing, "draws_beside", lambda trainer: is_beside)

    class Broken(Draws):
        def draw(self, log: LogSnapshot, number: int) -> None:
            raise ValueError(f"no picture {number}")

    with pytest.warns(UserWarning, match=r"Broken could not draw: ValueError: no picture 1\. Training continues\."):
        trainer = fit(make_classifier(), tmp_path, [Broken(), ConfusionMatrix()], epochs=1)
    assert trainer.global_step == 3
    assert "confusion_matrix/val" in events(tmp_path).Tags()["images"]


def test_only_rank_zero_draws() -> None:
    other: Any = SimpleNamespace(is_global_zero=False)
    Draws().draw_later(other, 0)  # on rank zero, it would read the trainer's loggers


@pytest.mark.usefixtures("beside")
def test_images_of_a_failed_run_are_complete(make_classifier: Make, tmp_path: Path) -> None:
    class Fails(Draws):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            if trainer.global_step == 5:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(make_classifier(), tmp_path, [Fails(), TrainingBatch(every_n_epochs=1)], epochs=3)
    assert [event.step for event in events(tmp_path).Images("training_batch")] == [0, 3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("drawing")]


@pytest.mark.usefixtures("beside")
def test_an_interrupted_run_waits_only_for_the_drawing_in_progress(make_classifier: Make, tmp_path: Path) -> None:
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
    with pytest.warns(UserWarning, match="Queued drawings were cancelled"), pytest.raises(SystemExit):
        fit(make_classifier(), tmp_path, [watcher], epochs=3)
    assert watcher.drawn == [1]
    assert not any(thread.is_alive() for thread in watcher.threads)


@pytest.mark.parametrize(
    ("options", "validated", "trained"),
    [
        ({"epochs": 9, "check_val_every_n_epoch": 2}, [6, 8], [5, 9]),
        ({"epochs": -1, "max_steps": 9}, [3], [3]),
        ({"epochs": -1, "max_steps": 8}, [2], [3]),  # training ends before the third validation
        ({"epochs": 20, "max_steps": 16, "accumulate_grad_batches": 2}, [5, 8], [5, 8]),
    ],
)
def test_callbacks_run_in_every_nth_and_in_the_last_planned_epoch(
    make_classifier: Make, tmp_path: Path, options: dict[str, Any], validated: list[int], trained: list[int]
) -> None:
    watcher = Looks(every_n_epochs=5)
    fit(make_classifier(), tmp_path, [watcher], **options)
    assert (watcher.validated, watcher.trained) == (validated, trained)


@pytest.mark.parametrize(
    ("options", "validated", "trained"),
    [
        ({"epochs": 10}, [1, 2, 4, 8, 10], [1, 2, 4, 8, 10]),
        ({"epochs": 9, "check_val_every_n_epoch": 4}, [4, 8], [1, 2, 4, 8, 9]),
    ],
)
def test_callbacks_run_less_and_less_often_by_default(
    make_classifier: Make, tmp_path: Path, options: dict[str, Any], validated: list[int], trained: list[int]
) -> None:
    watcher = Looks()
    fit(make_classifier(), tmp_path, [watcher], limit_train_batches=1, limit_val_batches=1, **options)
    assert (watcher.validated, watcher.trained) == (validated, trained)


def test_a_resumed_run_draws_in_the_same_epochs(make_classifier: Make, tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(make_classifier(), tmp_path, [save], epochs=4, limit_train_batches=1, enable_checkpointing=True)
    watcher = Looks()
    few = {"limit_train_batches": 1, "epochs": 6}
    fit(make_classifier(), tmp_path, [watcher], ckpt_path=tmp_path / "epoch=2.ckpt", **few)  # of the third epoch
    assert (watcher.validated, watcher.trained) == ([4, 6], [4, 6])


def test_powers_of_two_are_planned() -> None:
    planned = [epoch for epoch in range(1, 100) if is_planned(epoch - 1, epoch, None)]
    assert planned == [1, 2, 4, 8, 16, 32, 64]
    assert [end for end in range(10, 100, 10) if is_planned(end - 10, end, None)] == [10, 20, 40, 70]
    assert [epoch for epoch in range(1, 10) if is_planned(epoch - 1, epoch, 3)] == [3, 6, 9]


@pytest.mark.usefixtures("beside")
def test_drawing_keeps_pythons_lock_for_a_short_time(make_classifier: Make, tmp_path: Path) -> None:
    intervals, before = [], sys.getswitchinterval()

    class Reads(Draws):
        def draw(self, log: LogSnapshot, number: int) -> None:
            intervals.append(sys.getswitchinterval())

    fit(make_classifier(), tmp_path, [Reads()], epochs=1)
    assert max(intervals) < before / 10
    assert sys.getswitchinterval() == before


def test_callbacks_run_in_the_validation_at_the_end_of_max_time(make_classifier: Make, tmp_path: Path) -> None:
    class TimeIsUp(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            trainer.should_stop = trainer.global_step == 4  # like Timer

    watcher = Looks(every_n_epochs=5)
    fit(make_classifier(), tmp_path, [TimeIsUp(), watcher], epochs=9)
    assert watcher.validated == [2]


def test_callbacks_that_need_the_whole_network_are_silent_for_shards(
    make_classifier: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(callbacks.base.drawing, "SHARDED", (SingleDeviceStrategy,))
    watching = [NetworkGraph(), Histograms(), ConvolutionKernels(every_n_epochs=1), GradCAM(), ConfusionMatrix()]
    fit(make_classifier(), tmp_path, watching)
    (message,) = (str(warning.message) for warning in recwarn if "shards the network" in str(warning.message))
    assert message.endswith("log nothing: NetworkGraph, Histograms, ConvolutionKernels, GradCAM.")
    tags = events(tmp_path).Tags()
    assert tags["images"] == ["confusion_matrix/val", "confusion_matrix_normalised/val"]
    assert not tags["graph"]
    assert not tags["histograms"]


def test_captions_name_the_kind_of_weights(make_classifier: Make, tmp_path: Path) -> None:
    moments: dict[str, str] = {}

    class Says(DrawingCallback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            moments["training"] = LogSnapshot(trainer).moment

        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            moments["validation"] = LogSnapshot(trainer).moment

    fit(make_classifier(), tmp_path / "1", [Says(), EMA(decay=0.5)], epochs=1)
    assert moments == {"training": "epoch 1, trained weights", "validation": "epoch 1, averaged weights"}
    fit(make_classifier(), tmp_path / "2", [Says()], epochs=1)
    assert moments == {"training": "epoch 1", "validation": "epoch 1"}
