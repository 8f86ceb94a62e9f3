"""Callbacks for tests of distributed training: they fail, compare ranks, or record the images."""

import os
import signal
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Fail(Callback):
    """Raise or send SIGKILL in a hook, on one rank or on all (-1), after touching the file ``note``."""

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
    """Raise if learning rates or final weights differ between ranks."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._compare(trainer, trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare(trainer, float(sum(parameter.sum() for parameter in pl_module.parameters())))

    def _compare(self, trainer: Trainer, value: float) -> None:
        values: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise ValueError(f"Expected the same value on all ranks, but got {values}.")


class Seen(Callback):
    """Write ``<folder>/<rank>.txt``: the seed, and stage, epoch and file of each image."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, [f"seed {torch.initial_seed()}\n"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._note(trainer, f"train{trainer.current_epoch}", trainer.train_dataloader, batch_idx)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._note(trainer, f"val{trainer.current_epoch}", trainer.val_dataloaders, batch_idx)

    def on_test_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self._note(trainer, "test", trainer.test_dataloaders, batch_idx)

    def _note(self, trainer: Trainer, stage: str, loader: Any, batch_idx: int) -> None:
        self._write(trainer, [f"{stage} {Path(path).name}\n" for path in loader.paths(batch_idx)])

    def _write(self, trainer: Trainer, lines: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{trainer.global_rank}.txt").open("a") as file:
            file.writelines(lines)


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)
