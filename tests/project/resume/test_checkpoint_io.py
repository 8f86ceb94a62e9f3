import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from lightning_modules import ImageClassifier
from project.__main__ import main
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


FILLS = """
import resource
from pathlib import Path

from lightning.pytorch import Callback

class Fills(Callback):
    def __init__(self, folder: str, left: int):
        self.folder, self.left = folder, left

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 1:
            return
        if not self.folder:  # no disk to fill
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.left, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return
        with (Path(self.folder) / "filling").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(max(0, file.tell() - self.left))
"""


@pytest.fixture
def limits() -> Iterator[None]:
    """Restore the limit on the size of files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the mount point of a file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("needs Linux to mount a small file system")
    if (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"may not mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill(
    tmp_path: Path, fast: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable:
    """Return a function that trains until the disk is full, and returns exit code, stderr and the run directory."""
    (tmp_path / "filling.py").write_text(FILLS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "filling", raising=False)

    def train(runs: Path, folder: str, left: int, *options: str) -> tuple[int, str, Path]:
        callback = f'[{{class_path: filling.Fills, init_args: {{folder: "{folder}", left: {left}}}}}]'
        args = [
            *fast,
            "--callbacks=false",
            f"--trainer.callbacks={callback}",
            "--trainer.max_epochs=3",
            f"--runs_dir={runs}",
            *options,
        ]
        with pytest.raises(SystemExit) as stop:
            main(["fit", *args])
        (run,) = (runs / "lenet").iterdir()
        return stop.value.code, capsys.readouterr().err, run

    return train


def test_full_disk_costs_no_checkpoint_and_is_reported_in_one_line(small_disk: Path, fill: Callable) -> None:
    code, err, run = fill(small_disk, str(small_disk), 200_000)
    check_full_disk(code, err, run)
    assert "No space left on device" in err


def check_full_disk(code: int, err: str, run: Path) -> None:
    """Check that a full disk in the second epoch is reported in one line, and the first epoch is intact."""
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert f"{run}/checkpoints/" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for name in ("best.ckpt", "last.ckpt"):
        assert torch.load(run / "checkpoints" / name, weights_only=True)["epoch"] == 0
        ImageClassifier.load_from_checkpoint(run / "checkpoints" / name)


@pytest.mark.usefixtures("limits")
def test_file_size_limit_costs_no_checkpoint(tmp_path: Path, fill: Callable) -> None:
    check_full_disk(*fill(tmp_path / "runs", "", 200_000))
