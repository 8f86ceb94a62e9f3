"""Write checkpoints whole or not at all, and say what is left when the disk is full."""

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO

from lightning_modules.weights.safe_load import LoadError, load_safely
from project.errors import DiskFullError
from project.runs.summary import shell_command

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk, of the user's share, of what a file may hold
PARTIAL = ".ckpt.partial"
STARTED = time.time()  # a partial file that was last written to before is nobody's any more


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way of saving, but written beside the target and renamed, so that the target is whole at any moment.

    Lightning's own writes to the folder of temporary files and moves: on another disk, as /tmp often is, that is a copy
    over the last good checkpoint, which a kill or a full disk leaves truncated.

    Loading is ``weights_only``, unless the caller says otherwise.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save to a file; to what has an address, as s3://, by Lightning's own.

        Raises:
            DiskFullError: There is no room; what was at ``path`` is still there.
        """
        if "://" in os.fspath(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for killed in target.parent.glob(f"*{PARTIAL}"):
            with suppress(FileNotFoundError):  # another process has been faster
                if killed.stat().st_mtime < STARTED:
                    killed.unlink()
        content = io.BytesIO()  # into a file, torch would tell of a full disk as of a bug of its own
        torch.save(checkpoint, content)
        partial = target.with_name(f"{target.stem}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())  # or, when the power fails, the new name might come before the content
            os.replace(partial, target)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in FULL:
                raise DiskFullError(f"for {content.tell() / 1e6:.3g} MB in {target.parent}") from error
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load to the CPU, if nothing else is said."""
        map_location = map_location or torch.device("cpu")
        return super().load_checkpoint(path, map_location, weights_only is not False)


def use_atomic_io(trainer: Trainer, plugins: Any) -> None:
    """Have a trainer write checkpoints whole, unless the user's ``plugins`` write them otherwise."""
    given = trainer.strategy.checkpoint_io
    asked = [one for one in (plugins if isinstance(plugins, list) else [plugins]) if isinstance(one, CheckpointIO)]
    if type(given) is TorchCheckpointIO and given not in asked:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    elif type(given) is AsyncCheckpointIO and type(given.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AsyncCheckpointIO(AtomicCheckpointIO())


@contextmanager
def report_full_disk(run: Callable[[], Path]) -> Iterator[None]:
    """Say of a full disk, whoever met it, which checkpoint of a run is left.

    Args:
        run: Returns the run's folder, which other processes than the first learn late.

    Raises:
        DiskFullError: The disk is full.
    """
    hook = threading.excepthook
    # TensorBoard's writer prints what ends its thread, and raises it at its next call too
    threading.excepthook = lambda args: None if _missing_room(args.exc_value, run()) else hook(args)
    try:
        yield
    except Exception as error:  # a full disk may reach us as whatever a logger, or torch, makes of it
        if (room := _missing_room(error, run())) is None:
            raise
        raise DiskFullError(f"Expected room {room}, but the disk is full; {_what_is_left(run())}") from error
    finally:
        threading.excepthook = hook


def _missing_room(error: BaseException | None, run: Path) -> str | None:
    """Return what there was no room for; loggers that close for an error meet it again and hide the first."""
    found = None
    while error is not None:
        if isinstance(error, DiskFullError):
            return str(error)
        if isinstance(error, OSError) and error.errno in FULL:
            found = f"in {Path(os.fsdecode(error.filename)).parent if isinstance(error.filename, str | bytes) else run}"
        error = error.__context__
    return found


def _what_is_left(run: Path) -> str:
    found = []
    for file in (run / "checkpoints").glob("*.ckpt"):
        with suppress(LoadError, KeyError, TypeError):  # another's, which is not to be loaded safely
            loaded = load_safely(file)
            found.append((loaded["global_step"], loaded["epoch"], file))
    if not found:
        return "there is no checkpoint yet. Make room and start again."
    _, epoch, file = max(found)
    kept = f"the last good checkpoint is {file} of epoch {epoch + 1}"
    return f"{kept}. Make room and go on:  {shell_command('project', 'fit', '--run', run)}"
