import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import stop_of
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from project.resume.checkpoint_io import AtomicCheckpointIO, use_atomic_io

ROOT = Path(__file__).parents[3]
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def test_a_checkpoint_in_memory_is_returned_once(tmp_path: Path) -> None:
    file, content = str(tmp_path / "last.ckpt"), {"epoch": 1}
    io = AtomicCheckpointIO(file, content)
    assert io.load_checkpoint(file) is content
    with pytest.raises(FileNotFoundError):
        io.load_checkpoint(file)


def test_a_saved_checkpoint_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    for epoch in (0, 1):
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "weights": torch.ones(3)}, tmp_path / "new/last.ckpt")
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / "new/last.ckpt")
    assert loaded["epoch"] == 1
    assert torch.equal(loaded["weights"], torch.ones(3))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


class Own(TorchCheckpointIO):
    """A CheckpointIO of the user."""


@pytest.mark.parametrize(("plugins", "kind"), [(None, AtomicCheckpointIO), ([Own()], Own)])
def test_plugin_of_the_user_is_used(plugins: list[Own] | None, kind: type) -> None:
    trainer = Trainer(accelerator="cpu", plugins=plugins, **QUIET)
    use_atomic_io(trainer)
    assert type(trainer.strategy.checkpoint_io) is kind


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to kill many processes in a short time")
def test_killed_at_any_moment_each_checkpoint_is_complete_and_none_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "tests/kill_saving.py", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-2]) >= 12  # opening and renaming each of two files in three epochs


class LimitFileSize(Callback):
    """Limit the size of files in the second epoch: writing a checkpoint fails as on a full disk."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_full_disk_costs_no_checkpoint_and_is_reported_in_one_line(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--callbacks=false", "--trainer.callbacks=[test_checkpoint_io.LimitFileSize]", f"--runs_dir={tmp_path}"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        code, err = stop_of(["fit", *fast, *options], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (folder,) = tmp_path.glob("lenet/*/checkpoints")
    assert code == 2
    assert re.match(rf"error: \[Errno \d+\] File too large: '{folder}/\w+.ckpt'", err.splitlines()[-1])
    assert "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    for file in folder.iterdir():
        assert torch.load(file, weights_only=True)["epoch"] == 0
