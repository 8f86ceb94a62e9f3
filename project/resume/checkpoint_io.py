"""Write checkpoints atomically, and report the last good checkpoint when the disk is full."""

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO, TorchCheckpointIO

from atomic_files import write_atomically
from project.errors import DiskFullError
from project.runs.config import BEST, LAST
from project.runs.summary import shell_command

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota exceeded, file size limit


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint to a temporary file next to the target, and rename it, so that the target is always complete.

    Lightning writes to the directory for temporary files, and moves the file. If /tmp is on another disk, that copies
    over the last good checkpoint, which is truncated if the process is killed or the disk is full.

    Loading is ``weights_only`` by default.

    Args:
        file: Path of a checkpoint that is already in memory.
        content: Its content, which the first ``load_checkpoint`` of this path returns.
    """

    def __init__(self, file: str | None = None, content: dict[str, Any] | None = None) -> None:
        self._loaded = {file: content} if file and content else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save to a file; URLs such as s3:// are left to Lightning.

        Raises:
            DiskFullError: The disk is full. The previous file at ``path`` is unchanged.
        """
        if "://" in os.fspath(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # when writing to a file, torch reports a full disk as an internal error
        torch.save(checkpoint, content)
        try:
            with write_atomically(target, durable=True) as partial:
                partial.write_bytes(content.getbuffer())
        except OSError as error:
            if error.errno in FULL:
                raise DiskFullError(f"for {content.tell() / 1e6:.3g} MB in {target.parent}") from error
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load to the CPU by default."""
        if (loaded := self._loaded.pop(os.fspath(path), None)) is not None:
            return loaded
        map_location = map_location or torch.device("cpu")
        return super().load_checkpoint(path, map_location, weights_only is not False)


def use_atomic_io(
    trainer: Trainer, plugins: Any, file: str | None = None, content: dict[str, Any] | None = None
) -> None:
    """Set AtomicCheckpointIO, with these arguments, in a trainer, unless the user's ``plugins`` have a CheckpointIO."""
    current, atomic = trainer.strategy.checkpoint_io, AtomicCheckpointIO(file, content)
    own = plugins if isinstance(plugins, list) else [plugins]
    if type(current) is TorchCheckpointIO and not any(item is current for item in own):
        trainer.strategy.checkpoint_io = atomic
    elif type(current) is AsyncCheckpointIO and type(current.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AsyncCheckpointIO(atomic)


@contextmanager
def report_full_disk(run: Path) -> Iterator[None]:
    """Turn any error that a full disk caused into a DiskFullError that names the last good checkpoint.

    Raises:
        DiskFullError: The disk is full.
    """
    hook = threading.excepthook
    # TensorBoard's writer thread prints its exception, and raises it again at the next call
    threading.excepthook = lambda args: None if _missing_room(args.exc_value, run) else hook(args)
    try:
        yield
    except Exception as error:  # loggers and torch wrap the OSError of a full disk
        if (room := _missing_room(error, run)) is None:
            raise
        raise DiskFullError(f"Expected disk space {room}, but the disk is full; {_last_good(run)}") from error
    finally:
        threading.excepthook = hook


def _missing_room(error: BaseException | None, run: Path) -> str | None:
    """Return where space is missing, or None; closing a logger may raise again and hide the first error."""
    room = None
    while error is not None:
        if isinstance(error, DiskFullError):
            return str(error)
        if isinstance(error, OSError) and error.errno in FULL:
            room = f"in {Path(os.fsdecode(error.filename)).parent if isinstance(error.filename, str | bytes) else run}"
        error = error.__context__
    return room


def _last_good(run: Path) -> str:
    """Return the newest checkpoint, all of which are complete, and the command to resume the run."""
    files = [file for file in (run / LAST, run / BEST) if file.is_file()]
    if not files:
        return "there is no checkpoint yet. Free disk space and start again."
    newest = max(files, key=lambda file: file.stat().st_mtime)  # the first if equal
    command = shell_command("project", "fit", "--run", run)
    return f"the last good checkpoint is {newest}. Free disk space and resume:  {command}"
