"""Checkpoints from which a run goes on as if nothing had happened."""

import csv
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from project.measured import METRICS

KEY = "resume"  # of what is kept in a checkpoint beside Lightning's own


class Checkpoint(ModelCheckpoint):
    """Lightning's, which writes the last one behind every validation, and one more when a signal ends training.

    They hold what Lightning leaves out: the states of all random numbers, gradients that are being accumulated, the
    metric that a ReduceLROnPlateau is yet to see, and how many rows of metrics.csv came before.
    """

    _resumed: dict[str, Any] | None = None
    _within = False  # an epoch that training went on in

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        found, self._resumed = self._resumed, None
        if found is None:
            return
        self._within = not trainer.is_last_batch
        _show_to_plateaus(trainer, found["watched"])
        for name, gradient in found["gradients"].items():
            parameter = pl_module.get_parameter(name)
            parameter.grad = gradient.to(parameter.device)
        # Lightning forgets it if a schedule asked for the length of training before
        loader: Any = trainer.train_dataloader
        if found["loaders"] and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(found["loaders"][0])
        if trainer.global_rank < len(found["random"]):  # there may be more devices now
            set_random_state(found["random"][trainer.global_rank])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        # Lightning writes the last one only where it wrote the best one
        due = self.save_last and not (trainer.sanity_checking or self._should_skip_saving_checkpoint(trainer))
        if due and not self._should_save_on_train_epoch_end(trainer):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._within:  # Lightning steps them in no epoch that it did not begin
            self._within = False
            _show_to_plateaus(trainer, _watched(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._should_save_on_train_epoch_end(trainer):  # else the last one is there, and of the same step
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises it behind whole steps alone, on all devices at once
        within = trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0
        if isinstance(exception, SIGTERMException) and within and not trainer.is_last_batch:
            self._save_last(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        gradients = {}
        if trainer.accumulate_grad_batches > 1:
            gradients = {name: one.grad for name, one in pl_module.named_parameters() if one.grad is not None}
        checkpoint[KEY] = {
            "random": _of_all_ranks(random_state(), trainer),
            "gradients": gradients,
            "watched": _watched(trainer),
            "rows": _rows(trainer),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING and KEY in checkpoint:
            states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
            self._resumed = checkpoint[KEY] | {"loaders": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the files' names, in the folder where they are now: a run may have been moved."""
        assert self.dirpath is not None
        folder = Path(self.dirpath)

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        best_k_models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": best_k_models}
        moved |= {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        super().load_state_dict(state_dict | moved)

    def _save_last(self, trainer: Trainer) -> None:
        assert self.dirpath is not None
        trainer.save_checkpoint(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")


def random_state() -> dict[str, Any]:
    """Return the states of the random numbers of Python, NumPy and torch, as plain values and tensors."""
    numpy = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {
            **numpy,
            "state": {**numpy["state"], "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64))},
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set what ``random_state`` returned."""
    inner = state["numpy"]["state"]
    random.setstate(state["python"])
    np.random.set_state({**state["numpy"], "state": {**inner, "key": inner["key"].numpy().astype(np.uint32)}})
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def _of_all_ranks(value: Any, trainer: Trainer) -> list[Any]:
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def _watched(trainer: Trainer) -> dict[int, float]:
    """Return the metric of each schedule that waits for one: Lightning steps it only behind the checkpoint."""
    return {
        i: float(trainer.callback_metrics[config.monitor])
        for i, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in trainer.callback_metrics
        if trainer.is_last_batch and (trainer.current_epoch + 1) % config.frequency == 0
    }


def _show_to_plateaus(trainer: Trainer, watched: dict[int, float]) -> None:
    for i, value in watched.items():
        if i < len(trainer.lr_scheduler_configs) and trainer.lr_scheduler_configs[i].reduce_on_plateau:
            trainer.lightning_module.lr_scheduler_step(trainer.lr_scheduler_configs[i].scheduler, value)


def _rows(trainer: Trainer) -> int:
    """Write all rows of metrics.csv, and return how many they are."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger) and trainer.is_global_zero:
            logger.save()
            path = Path(logger.log_dir) / METRICS
            if path.is_file():
                with path.open(newline="") as file:
                    return sum(1 for _ in csv.reader(file)) - 1
    return 0


def how_far(checkpoint: Path) -> tuple[int, int]:
    """Return how many rows of metrics.csv a checkpoint has behind it, and the first step of events that it has not."""
    found = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return found.get(KEY, {}).get("rows", 0), found["global_step"] + 1  # pictures of a validation bear its step


def open_table(logger: CSVLogger, rows: int) -> None:
    """Open metrics.csv with the rows that came before a checkpoint: the logger itself would begin an empty one."""
    path = Path(logger.log_dir) / METRICS
    lines = path.read_text().splitlines(keepends=True)[: rows + 1] if rows and path.is_file() else []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        table = logger.experiment
    if lines:
        path.write_text("".join(lines))
        table.metrics_keys = lines[0].strip().split(",")
