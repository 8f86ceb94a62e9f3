"""Callbacks for training in several processes: some fail or compare ranks, and one records the images."""

import os
import signal
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Fail(Callback):
    """Fail in a hook on one rank, or on all (-1), with an exception or a kill, and record the time."""

    def __init__(self, note: str, hook: str, rank: int = 1, how: Literal["raise", "kill"] = "raise") -> None:
        def fail(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            if rank not in (-1, trainer.global_rank) or trainer.sanity_checking:
                return
            Path(note).touch()
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"this went wrong in {hook}")

        setattr(self, hook, fail)


class SameOnAll(Callback):
    """Fail if the learning rates or the weights differ between processes."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._compare(trainer, trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare(trainer, float(sum(parameter.sum() for parameter in pl_module.parameters())))

    def _compare(self, trainer: Trainer, value: float) -> None:
        values: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise ValueError(f"Expected the same on all processes, but got {values}.")


class Seen(Callback):
    """Write ``<folder>/<rank>.txt``: the epoch and file of each training image, the file of each one tested, a seed."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, [f"seed {torch.initial_seed()}\n"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        loader: Any = trainer.train_dataloader
        self._note(trainer, f"train{trainer.current_epoch}", loader, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            loader: Any = trainer.val_dataloaders
            self._note(trainer, f"val{trainer.current_epoch}", loader, batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        loader: Any = trainer.test_dataloaders
        self._note(trainer, "test", loader, batch_idx)

    def _note(self, trainer: Trainer, stage: str, loader: Any, batch_idx: int) -> None:
        self._write(trainer, [f"{stage} {Path(path).name}\n" for path in loader.paths(batch_idx)])

    def _write(self, trainer: Trainer, lines: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{trainer.global_rank}.txt").open("a") as file:
            file.writelines(lines)


class RunsCode:
    """An object that creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)
