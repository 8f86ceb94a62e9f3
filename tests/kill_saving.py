"""Kill a training before each of its actions on files, and check the checkpoints: kill_saving.py DIRECTORY."""

import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_modules.weights.safe_load import load_safely
from project.resume.checkpoint_io import use_atomic_io

ACTIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.truncate", "shutil.move"}


class Rises(LightningModule):
    """A module that improves in every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.log("val/acc", float(self.current_epoch))
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(folder: Path) -> None:
    """Train for three epochs with the checkpoints of the command line."""
    checkpoint = ModelCheckpoint(
        folder, monitor="val/acc", mode="max", filename="best", save_last=True, auto_insert_metric_name=False
    )
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=3, callbacks=[checkpoint], **quiet)
    use_atomic_io(trainer)
    trainer.fit(Rises(), torch.utils.data.DataLoader(torch.ones(2, 4)))


def start(folder: Path, die_at: int) -> int:
    """Train in a child process, which kills itself before its n-th action on a file in the directory."""
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
        train(folder)
    except BaseException:
        os._exit(1)
    os._exit(0)


def epochs(folder: Path) -> dict[str, int]:
    """Return the epoch of each checkpoint, all of which must be complete."""
    return {file.name: load_safely(file)["epoch"] for file in folder.glob("*.ckpt")}


def main(parent: Path) -> None:
    """Kill a training before its first action on a file, its second, ... until one finishes."""
    before: dict[str, int] = {}
    for action in range(1, 1000):
        folder = parent / f"action_{action}"
        status = os.waitpid(start(folder, action), 0)[1]
        left = epochs(folder)
        assert before.keys() <= left.keys(), f"{before} became {left} before action {action}"
        assert all(left[name] >= epoch for name, epoch in before.items()), f"{before} became {left}"
        before = left
        if not os.WIFSIGNALED(status):
            assert status == 0, "the training failed"
            break
    assert before == {"best.ckpt": 2, "last.ckpt": 2}
    print(f"killed before each of {action - 1} actions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
