"""Write checkpoints atomically."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO

from atomic_files import write_atomically


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
        """Save to a file, which is unchanged if the disk is full; URLs such as s3:// are left to Lightning."""
        if "://" in os.fspath(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # when writing to a file, torch reports a full disk as an internal error
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            with write_atomically(Path(path), durable=True) as partial:
                partial.write_bytes(content.getbuffer())
        except OSError as error:  # that of a full disk has no file name
            error.filename = os.fspath(path)
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if (loaded := self._loaded.pop(os.fspath(path), None)) is not None:
            return loaded
        map_location = map_location or torch.device("cpu")
        return super().load_checkpoint(path, map_location, weights_only is not False)


def use_atomic_io(trainer: Trainer, file: str | None = None, content: dict[str, Any] | None = None) -> None:
    """Set AtomicCheckpointIO, with these arguments, in a trainer without a CheckpointIO of the user."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(file, content)
