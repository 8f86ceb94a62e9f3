"""Checkpoints from which a run goes on as if nothing had happened."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from project.resume.checkpoint_io import PARTIAL
from project.resume.csv_logger import written_rows
from project.resume.rng import random_state, set_random_state
from project.runs.config import setting

KEY = "resume"  # of what is kept in a checkpoint beside Lightning's own


class Checkpoint(ModelCheckpoint):
    """Lightning's, which writes the last one behind every validation and epoch, and when a signal ends training.

    They hold what Lightning leaves out: the states of all random numbers, gradients that are being accumulated, the
    metrics that EarlyStopping and ReduceLROnPlateau are yet to see, how many rows of metrics.csv came before, and the
    settings of the run.

    Attributes:
        settings: The run's config; what a run goes on with is compared with it.
    """

    settings: dict[str, Any] | None = None
    _resumed: dict[str, Any] | None = None
    _plateaus_wait = False  # for the end of the epoch that training went on in; Lightning steps them in no such epoch
    _kept: tuple[int, int] | None = None  # step and batch of the last one
    _ending_epoch = False
    _nothing_left = False  # of the epoch that training went on in, not even a validation
    _own = True  # whether training goes on from a checkpoint of this folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        found, self._resumed = self._resumed, None
        if found is None:
            return
        self._plateaus_wait = trainer.fit_loop.restarted_mid_epoch
        # at an epoch's end, a checkpoint written now would have a part of that end in it, and have it done again
        self._kept = (trainer.global_step, trainer.fit_loop.total_batch_idx)
        if self._own and trainer.is_global_zero:
            self._complete_last(Path(str(trainer.ckpt_path)))
        self._set_progress(trainer)
        if not trainer.is_last_batch and _accumulation(self.settings) == _accumulation(found["settings"]):
            trainer.accumulate_grad_batches = found["accumulated"]  # a callback may have set it as the epoch began
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in found["metrics"].items()})
        if not self._plateaus_wait:  # the epoch has ended, and with it the metrics of training are known
            _show_to_plateaus(trainer, found["watched"])
        _set_gradients(trainer, pl_module, found["gradients"])
        # Lightning forgets it if a schedule asked for the length of training before
        loader: Any = trainer.train_dataloader
        if found["loaders"] and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(found["loaders"][0])
        if trainer.global_rank < len(found["random"]):  # there may be more devices now
            set_random_state(found["random"][trainer.global_rank])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:  # Lightning writes the last one only where it wrote the best one
            self.keep_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._nothing_left:
            loop: Any = trainer.fit_loop.epoch_loop
            loop.on_iteration_done()  # which a loop that begins at its end never comes to
            loop.val_loop._has_run = loop.val_loop.restarting = self._nothing_left = False
        super().on_train_epoch_end(trainer, pl_module)
        if self._plateaus_wait:
            self._plateaus_wait = False
            _show_to_plateaus(trainer, _watched(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write none: the last one is there, of the same step, and from before the epoch's end was logged."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises it behind whole steps alone, on all devices at once
        within = trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0
        if isinstance(exception, SIGTERMException) and within and not trainer.is_last_batch:
            self.keep_last(trainer)

    def keep_last(self, trainer: Trainer, ending_epoch: bool = False) -> None:
        """Write the last checkpoint, unless there is one of this batch.

        Args:
            trainer: Which trains; otherwise nothing is written.
            ending_epoch: The epoch's batches are done, and nothing else of its end is.
        """
        now = (trainer.global_step, trainer.fit_loop.total_batch_idx)
        trial = trainer.fast_dev_run  # type: ignore[attr-defined]  # set elsewhere in Lightning
        if not self.save_last or self._kept == now or trainer.state.fn != TrainerFn.FITTING or trial:
            return
        assert self.dirpath is not None
        self.last_model_path = str(Path(self.dirpath) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        self._ending_epoch = ending_epoch
        trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
        self._kept, self._ending_epoch = now, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        if self._ending_epoch:  # it is to be ended again
            for one in (progress["current"], progress["total"]):
                one["processed"] -= 1
        checkpoint[KEY] = {
            "random": _of_all_ranks(random_state(), trainer),
            "gradients": _of_all_ranks(_gradients(trainer, pl_module), trainer),
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
                checkpoint["callbacks"][callback.state_key]["patience"] = callback.patience  # a setting, no state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the files' names, in the folder where they are now: a run may have been moved.

        Those of another run, whose checkpoint training goes on from, are not taken.
        """
        if not self._own:
            return
        assert self.dirpath is not None
        folder = Path(self.dirpath)

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        best_k_models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": best_k_models}
        moved |= {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        super().load_state_dict(state_dict | moved)

    def _complete_last(self, checkpoint: Path) -> None:
        """Make the run's only checkpoint its last one too: the process was killed after it wrote the best one."""
        last = checkpoint.with_name(f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}")
        if self.save_last and not last.exists():
            partial = last.with_name(f"{last.stem}{PARTIAL}")
            shutil.copyfile(checkpoint, partial)
            partial.replace(last)

    def _set_progress(self, trainer: Trainer) -> None:
        """Have Lightning's loop begin where the checkpoint lies, with epochs of as many batches as they have now."""
        loop: Any = trainer.fit_loop.epoch_loop
        progress, batches = loop.batch_progress.current, trainer.num_training_batches
        if trainer.is_last_batch:
            for name in vars(progress):
                setattr(progress, name, batches)
            if not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
                # or Lightning would train a batch more before it ends the epoch
                loop.val_loop._has_run = self._nothing_left = True
        elif progress.ready > batches:
            raise MisconfigurationException(
                f"Expected at least {progress.ready} batches an epoch, as the checkpoint has behind it in its own, but "
                f"got {batches}. Leave --trainer.limit_train_batches as it was."
            )

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, torch.Tensor]) -> None:
        self.keep_last(trainer)  # in the place of Lightning's, which would take the version behind an epoch's end


class EpochKeeper(Callback):
    """Has the last checkpoint written before an epoch ends that has no validation, or is cut off by ``max_steps``.

    Lightning calls a ModelCheckpoint itself behind everything that an epoch's end does, which is then neither in the
    checkpoint nor done again.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for one in trainer.checkpoint_callbacks:
            if isinstance(one, Checkpoint):
                one.keep_last(trainer, ending_epoch=True)


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


def _accumulation(settings: dict[str, Any] | None) -> Any:
    return setting(settings or {}, "trainer.accumulate_grad_batches")


def _gradients(trainer: Trainer, pl_module: LightningModule) -> dict[str, torch.Tensor]:
    """Return what this process has accumulated for a step that is yet to be made."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    if trainer.is_last_batch or not batches % trainer.accumulate_grad_batches:
        return {}
    named = pl_module.named_parameters()
    return {name: _local(one.grad).cpu() for name, one in named if one.grad is not None}


def _set_gradients(trainer: Trainer, pl_module: LightningModule, of_ranks: list[dict[str, torch.Tensor]]) -> None:
    if not any(of_ranks):
        return
    if len(of_ranks) != trainer.world_size:
        raise MisconfigurationException(
            f"Expected {len(of_ranks)} devices as in the checkpoint, which lies within a step of several batches "
            f"(accumulate_grad_batches), but got {trainer.world_size}. Go on with as many, or from a checkpoint of an "
            "epoch's end."
        )
    for name, gradient in of_ranks[trainer.global_rank].items():
        parameter = pl_module.get_parameter(name)
        parameter.grad = torch.zeros_like(parameter)
        _local(parameter.grad).copy_(gradient)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a tensor that is divided among several, or else the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def read_resume_state(checkpoint: Path, weights_only: bool = True) -> dict[str, Any]:
    """Return what a checkpoint of ``fit`` says of its run; nothing of another file, or one that cannot be loaded.

    Returns:
        "rows" of metrics.csv that it has behind it, "step", the first of events that it has not, and "settings".
    """
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=weights_only, mmap=True)
        kept = found[KEY]
        # pictures of a validation bear its step
        return {"rows": kept["rows"], "step": found["global_step"] + 1, "settings": kept["settings"]}
    except Exception:  # a file that is no checkpoint raises almost anything; check_weights says it in words
        return {}
