"""Checkpoints from which a run resumes exactly."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from atomic_files import write_atomically
from project.errors import RunError
from project.resume.csv_logger import written_rows
from project.resume.rng import random_state, set_random_state
from project.resume.signals import is_within_step
from project.runs.config import setting

KEY = "resume"  # of the additional state in a checkpoint


class Checkpoint(ModelCheckpoint):
    """ModelCheckpoint that also writes last.ckpt after every validation and epoch, and when a signal ends training.

    Checkpoints also hold state that Lightning does not save: the random states of all ranks, the metrics that
    EarlyStopping and ReduceLROnPlateau have not read yet, the number of rows of metrics.csv, and the settings of the
    run. They do not hold gradients: last.ckpt is not written between the batches of an optimizer step.

    Attributes:
        settings: Config of the run. A resumed run is compared with it.
    """

    settings: dict[str, Any] | None = None
    _resumed: dict[str, Any] | None = None
    _plateaus_pending = False  # ReduceLROnPlateau must be stepped at the end of the resumed epoch; Lightning skips it
    _saved_at: tuple[int, int] | None = None  # step and batch of last.ckpt
    _ending_epoch = False
    _epoch_complete = False  # the resumed epoch has no batches and no validation left
    _own = True  # whether training resumes from a checkpoint in this directory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        state, self._resumed = self._resumed, None
        if state is None:
            return
        self._plateaus_pending = trainer.fit_loop.restarted_mid_epoch
        # at the end of an epoch, a checkpoint written now would repeat a part of that end
        self._saved_at = (trainer.global_step, trainer.fit_loop.total_batch_idx)
        if self._own and trainer.is_global_zero:
            self._complete_last(Path(str(trainer.ckpt_path)))
        self._set_progress(trainer)
        key = "trainer.accumulate_grad_batches"
        if not trainer.is_last_batch and setting(self.settings or {}, key) == setting(state["settings"] or {}, key):
            # a callback may have set it at the start of the epoch
            trainer.accumulate_grad_batches = state["accumulated"]
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in state["metrics"].items()})
        if not self._plateaus_pending:  # the epoch has ended, so the training metrics are known
            _step_plateaus(trainer, state["watched"])
        # Lightning drops this state if a schedule has read the length of training before
        loader: Any = trainer.train_dataloader
        if state["loaders"] and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(state["loaders"][0])
        if trainer.global_rank < len(state["random"]):  # the number of devices may have increased
            set_random_state(state["random"][trainer.global_rank])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:  # Lightning writes last.ckpt only together with best.ckpt
            self.write_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch_complete:
            loop: Any = trainer.fit_loop.epoch_loop
            loop.on_iteration_done()  # not called by a loop without batches
            loop.val_loop._has_run = loop.val_loop.restarting = self._epoch_complete = False
        super().on_train_epoch_end(trainer, pl_module)
        if self._plateaus_pending:
            self._plateaus_pending = False
            _step_plateaus(trainer, _watched(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write nothing: last.ckpt of this step exists, and was written before the end of the epoch was logged."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises SIGTERMException only after whole steps, on all ranks at once
        in_training = trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0
        if isinstance(exception, SIGTERMException) and in_training and not trainer.is_last_batch:
            self.write_last(trainer)

    def write_last(self, trainer: Trainer, ending_epoch: bool = False) -> None:
        """Write last.ckpt in ``fit``, unless it was written after the same batch.

        ``ending_epoch`` is whether all batches of the epoch are done, but not its end.
        """
        position = (trainer.global_step, trainer.fit_loop.total_batch_idx)
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if not self.save_last or self._saved_at == position or trainer.state.fn != TrainerFn.FITTING or trial:
            return
        if is_within_step(trainer) and not ending_epoch:  # such as a validation in the middle of an optimizer step
            return
        assert self.dirpath is not None
        self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        self._ending_epoch = ending_epoch
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
        self._saved_at, self._ending_epoch = position, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        if self._ending_epoch:  # the resumed run repeats the end of the epoch
            for counts in (progress["current"], progress["total"]):
                counts["processed"] -= 1
        checkpoint[KEY] = {
            "random": _of_all_ranks(random_state(), trainer),
            "accumulated": trainer.accumulate_grad_batches,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "watched": _watched(trainer),
            "rows": written_rows(trainer),
            "settings": self.settings,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert self.dirpath is not None
        self._own = Path(str(trainer.ckpt_path)).parent.resolve() == Path(self.dirpath).resolve()
        if trainer.state.fn == TrainerFn.FITTING and KEY in checkpoint:
            states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
            self._resumed = checkpoint[KEY] | {"loaders": states}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set elsewhere in Lightning
            if isinstance(callback, EarlyStopping) and callback.state_key in checkpoint.get("callbacks", {}):
                checkpoint["callbacks"][callback.state_key]["patience"] = callback.patience  # a setting, not state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore file names in the present directory, because a run may have been moved.

        If training resumes from a checkpoint of another run, its file names are ignored.
        """
        if not self._own:
            return
        assert self.dirpath is not None
        folder, keys = Path(self.dirpath), ("best_model_path", "kth_best_model_path", "last_model_path")
        moved: dict[str, Any] = {key: str(folder / Path(path).name) for key in keys if (path := state_dict[key])}
        moved["best_k_models"] = {str(folder / Path(path).name): x for path, x in state_dict["best_k_models"].items()}
        moved["dirpath"] = self.dirpath
        super().load_state_dict(state_dict | moved)

    def _complete_last(self, checkpoint: Path) -> None:
        """Copy best.ckpt to last.ckpt if the process was killed between writing the two."""
        last = checkpoint.with_name(f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        if self.save_last and not last.exists():
            with write_atomically(last) as partial:
                shutil.copyfile(checkpoint, partial)

    def _set_progress(self, trainer: Trainer) -> None:
        """Set the position in the epoch to that of the checkpoint, with the present number of batches in an epoch."""
        loop: Any = trainer.fit_loop.epoch_loop
        progress, batches = loop.batch_progress.current, trainer.num_training_batches
        if trainer.is_last_batch:
            for name in vars(progress):
                setattr(progress, name, batches)
            if not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
                # otherwise, Lightning would train one more batch before the epoch ends
                loop.val_loop._has_run = self._epoch_complete = True
        elif progress.ready > batches:
            raise RunError(
                f"Expected at least {progress.ready} batches in an epoch, because the checkpoint was written after "
                f"them, but got {batches}. Use the --trainer.limit_train_batches of the checkpoint."
            )

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        self.write_last(trainer)  # Lightning would save the state after the end of the epoch


class EpochKeeper(Callback):
    """Writes last.ckpt before the end of an epoch that has no validation, or is stopped by ``max_steps``.

    Lightning calls ModelCheckpoint last at the end of an epoch: what other callbacks do there would be neither in the
    checkpoint nor repeated.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoint):
                callback.write_last(trainer, ending_epoch=True)


def _of_all_ranks(value: Any, trainer: Trainer) -> list[Any]:
    values: list[Any] = [value] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def _watched(trainer: Trainer) -> dict[int, float]:
    """Return the metric of each ReduceLROnPlateau: Lightning steps it only after the checkpoint is written."""
    return {
        i: float(trainer.callback_metrics[config.monitor])
        for i, config in enumerate(trainer.lr_scheduler_configs)
        if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in trainer.callback_metrics
        if trainer.is_last_batch and (trainer.current_epoch + 1) % config.frequency == 0
    }


def _step_plateaus(trainer: Trainer, metrics: dict[int, float]) -> None:
    for i, value in metrics.items():
        if i < len(trainer.lr_scheduler_configs) and trainer.lr_scheduler_configs[i].reduce_on_plateau:
            trainer.lightning_module.lr_scheduler_step(trainer.lr_scheduler_configs[i].scheduler, value)
