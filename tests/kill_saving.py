"""Kill processes while they save checkpoints, and check the files: python tests/kill_saving.py FOLDER."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_modules.weights.safe_load import load_safely
from project.resume.checkpoint_io import AtomicCheckpointIO, use_atomic_io

ACTIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.truncate", "shutil.move"}


class Rises(LightningModule):
    """A module whose metric improves in every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.log("val/acc", float(self.current_epoch))
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(folder: Path) -> None:
    """Train for three epochs with checkpoints like those of the command line."""
    checkpoint = ModelCheckpoint(
        folder, monitor="val/acc", mode="max", filename="best", save_last=True, auto_insert_metric_name=False
    )
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=3, callbacks=[checkpoint], **quiet)
    use_atomic_io(trainer, None)
    trainer.fit(Rises(), torch.utils.data.DataLoader(torch.ones(2, 4)))


def save_on_and_on(folder: Path) -> None:
    """Save 8 MB repeatedly."""
    for epoch in range(10**6):
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "weights": torch.zeros(2_000_000)}, folder / "last.ckpt")


def start(work: Callable[[Path], None], folder: Path, die_at: int = 0) -> int:
    """Run a function in a new process, which kills itself before its n-th operation on a file in the folder."""
    process = os.fork()
    if process:
        return process
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    done = 0

    def count(event: str, args: tuple[object, ...]) -> None:
        nonlocal done
        if event in ACTIONS and any(str(folder) in str(arg) for arg in args):
            done += 1
            if done == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        work(folder)
    except BaseException:
        os._exit(1)
    os._exit(0)


def epochs(folder: Path) -> dict[str, int]:
    """Return the epoch of each checkpoint, after checking that all are complete."""
    return {file.name: load_safely(file)["epoch"] for file in folder.glob("*.ckpt")}


def main(parent: Path) -> None:
    """Kill training before each of its file operations, then processes at random times."""
    before: dict[str, int] = {}
    for action in range(1, 1000):
        folder = parent / f"action_{action}"
        status = os.waitpid(start(train, folder, action), 0)[1]
        left = epochs(folder)
        assert before.keys() <= left.keys(), f"{before} became {left} before action {action}"
        assert all(left[name] >= epoch for name, epoch in before.items()), f"{before} became {left}"
        before = left
        if not os.WIFSIGNALED(status):
            assert status == 0, "the training failed"
            break
    assert before == {"best.ckpt": 2, "last.ckpt": 2}
    print(f"killed before each of {action - 1} actions")

    moments, rounds, partial = random.Random(0), 30, 0
    for number in range(rounds):
        folder = parent / f"round_{number}"
        process = start(save_on_and_on, folder)
        while not (folder / "last.ckpt").is_file():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        assert epochs(folder).keys() == {"last.ckpt"}
        partial += bool(list(folder.glob("*.partial")))
    print(f"killed at {rounds} moments, {partial} of them in the middle of a file")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
