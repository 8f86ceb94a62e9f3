"""Collect the facts on which a diagnosis of a training is based."""

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from atomic_files import write_atomically
from callbacks.base.log import LogSnapshot
from callbacks.base.steps import Step, StepCallback
from callbacks.tools import warn_once
from callbacks.tools.facts import Facts, series_facts, step_facts, val_facts
from callbacks.tools.probes import probe, setting_facts, val_step_facts

FACTS = "doctor_facts.json"
WINDOW = 2000  # latest losses and gradient norms that are kept
NORM_EVERY = 5  # steps: a gradient norm takes 1 % of a step of LeNet
SETTLED = 100  # steps from which the running statistics of batch norm are compared with those of batches
# not measured in each drawn epoch
SOMETIMES = ("eval_transform_acc", "val_acc", "batch_stat_acc", "train_transform_val_acc")


class Doctor(StepCallback):
    """Collect facts about a training in ``doctor_facts.json``, from which ``project.doctor`` concludes what is wrong.

    Each step stores its loss on the device, and every fifth its gradient norm; they are read every
    ``log_every_n_steps``. In drawn epochs, the middle step is compared with its weights, and images of train and val
    are predicted in eval mode: plain, through other transforms, and with the statistics of the batch in batch norm. The
    command line adds the judgement: it writes ``doctor.json``, prints an alarm once, and logs it.

    Tags: ``doctor`` (text).

    Args:
        action: "stop" ends training at an alarm; "warn" only prints it.
        silence: Causes that are no alarms; see ``docs/doctor.md``.
        preflight: Whether to examine copies of network, loss and schedule before the first step, in 2 seconds at most.
        images: Maximum number of images of train, and of val, to predict; 0 for none.
        every_n_epochs: See ``DrawingCallback``.
    """

    # set by the command line: returns facts before the first step; judges a run directory, and returns the cause of an
    # alarm and its words
    examine: Callable[[Trainer, LightningModule], Facts] | None = None
    judge: Callable[[Path], tuple[str | None, list[str]]] | None = None

    def __init__(
        self,
        action: Literal["warn", "stop"] = "warn",
        silence: Sequence[str] = (),
        preflight: bool = True,
        images: NonNegativeInt = 512,
        every_n_epochs: PositiveInt | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.action, self.silence, self.preflight, self.images = action, silence, preflight, images
        self.facts: Facts = {}
        self._new: dict[str, list[Tensor]] = {"loss": [], "norm": []}  # of steps, not yet read; scalars on the device
        self._series: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in self._new}
        self._moved = 0.0  # distance by which the latest examined step moved the weights
        self._kept: list[Tensor] = []  # weights at the end of its epoch
        self._preds: list[tuple[Tensor, Tensor]] | None = None  # targets and predictions of a drawn validation
        self._is_new = False  # whether there are facts to write
        self._latest: str | None = None  # cause of the latest judgement
        self._printed: set[str] = set()
        self._stop = False

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {"facts": dict(self.facts), "series": {name: list(values) for name, values in self._series.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.facts = dict(state_dict["facts"])
        self._series = {name: deque(map(float, values), WINDOW) for name, values in state_dict["series"].items()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        if trainer.global_step == 0 and self._collects(trainer):
            self._is_new = True
            if self.examine is not None and self.preflight:
                self.facts |= self.examine(trainer, pl_module)
            self._try(lambda: setting_facts(trainer, pl_module))
        alarm = self._write(trainer)  # now, because the metrics of the epoch before are in metrics.csv
        if self.action == "stop":
            self._stop = trainer.strategy.reduce_boolean_decision(alarm, all=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        kept, self._kept = self._kept, []
        if kept and self._moved:
            self._try(lambda: {"change_between_epochs": distance(pl_module.parameters(), kept) / self._moved})

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._collects(trainer) and loss.numel() == 1:
            scale = getattr(scaler_of(trainer), "_scale", None)  # on the device
            self._new["loss"].append(loss.detach() if scale is None else loss.detach() / scale)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if trainer.global_step % NORM_EVERY or not self._collects(trainer) or len(trainer.optimizers) > 1:
            return
        grads = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        if grads:
            self._new["norm"].append(get_total_norm(grads))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch and self._collects(trainer) and self.due(trainer):
            self._kept = [each.detach().clone() for each in pl_module.parameters()]
        if len(self._new["loss"]) >= (trainer.log_every_n_steps or 50):  # type: ignore[attr-defined]  # set elsewhere in Lightning
            self._read()
            if isinstance(batch, list | tuple) and isinstance(batch[-1], Tensor) and batch[-1].is_floating_point():
                self.facts["mixed_targets"] = 1
        if self._stop:
            trainer.should_stop = True

    def use(self, trainer: Trainer, step: Step) -> None:
        found, module, rates = step_facts(step), trainer.lightning_module, trainer.optimizers[0].param_groups
        self._moved = found.pop("moved")
        # the largest are kept, because with a learning rate near 0 weights hardly change
        if found.get("update_ratio", -1) >= self.facts.get("update_ratio", 0):
            self.facts |= found
        if scaler_of(trainer) is None and any(group["lr"] for group in rates):  # fp16 may have skipped the step
            self.facts["moved"] = max(self._moved, self.facts.get("moved", 0.0))
        norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.weight is not None]
        modes = [each.training for each in norms if each.weight.requires_grad]
        self.facts["norms_in_eval_mode"] = 1 - sum(modes) / max(len(modes), 1) if modes else None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *numbers: int
    ) -> None:
        is_fit = trainer.state.fn == TrainerFn.FITTING
        if not any(numbers) and is_fit and self.images and self._collects(trainer) and self.due(trainer):
            self._preds = []
            self.facts |= dict.fromkeys(SOMETIMES)
            with isolate_rng():  # a network may be random in eval mode
                self._try(lambda: probe(trainer, pl_module, self.images))
        if self._preds is None or not isinstance(outputs, dict) or not isinstance(batch, list | tuple):
            return
        if {"preds", "logits"} <= outputs.keys():
            self._preds.append((batch[1], outputs["preds"]))
            if len(self._preds) == 1 and batch[0].ndim == 4 and batch[1].ndim == 1:
                with isolate_rng():
                    self._try(lambda: val_step_facts(trainer, pl_module, batch, outputs["preds"]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        preds, self._preds = self._preds, None
        names: Any = getattr(pl_module, "class_names", None)
        if not preds or not names:
            return
        trained = getattr(getattr(trainer.train_dataloader, "dataset", None), "targets", None)
        targets, predicted = (torch.cat(each) for each in zip(*preds, strict=True))
        self._try(lambda: val_facts(targets, predicted, names, trained))
        accs: Any = map(self.facts.get, ("eval_transform_acc", "val_acc", "batch_stat_acc"))
        train_acc, val_acc, batch_stat_acc = accs
        if None not in (train_acc, val_acc):
            self.facts["train_and_val_accs"] = [*self.facts.get("train_and_val_accs", []), [train_acc, val_acc]]
        if None not in (batch_stat_acc, val_acc) and trainer.global_step >= SETTLED:
            self.facts["batch_stat_gaps"] = [*self.facts.get("batch_stat_gaps", []), batch_stat_acc - val_acc][-3:]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_new = self.due(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_new = True
        self._write(trainer, is_last=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._is_new = trainer.state.fn == TrainerFn.FITTING and bool(self._new["loss"] or self._series["loss"])
        with suppress(OSError, RuntimeError):  # of a full disk or a broken device, which must not replace the exception
            self._write(trainer, is_last=True)

    def _collects(self, trainer: Trainer) -> bool:
        return trainer.is_global_zero and not self.silent

    def _try(self, collect: Callable[[], Facts]) -> None:
        try:
            self.facts |= collect()
        except Exception as error:  # a user's module, data or transform can raise any exception; training continues
            warn_once(f"Doctor could not collect facts: {type(error).__name__}: {error}. Training continues.")

    def _read(self) -> None:
        """Transfer losses and norms from the device."""
        values = {name: torch.stack(new).float().flatten().tolist() for name, new in self._new.items() if new}
        for name, each in values.items():
            self._series[name].extend(each)
            self._new[name].clear()
        losses = values.get("loss", [])
        finite = [*filter(math.isfinite, losses)]
        self.facts["nonfinite_steps"] = self.facts.get("nonfinite_steps", 0) + len(losses) - len(finite)
        self.facts["largest_loss"] = max([self.facts.get("largest_loss", 0.0), *finite])

    def _write(self, trainer: Trainer, is_last: bool = False) -> bool:
        """Write the facts to the run directory if there are new ones; return whether they give an alarm."""
        if not self._is_new or not self._collects(trainer):
            return False
        self._is_new = False
        self._read()
        clip = trainer.gradient_clip_val if trainer.gradient_clip_algorithm != "value" else None
        planned = trainer.estimated_stepping_batches  # infinite if the end is unknown
        losses, norms = map(list, self._series.values())
        self.facts |= series_facts(losses, norms, clip, scaler_of(trainer) is not None)
        self.facts |= {
            "epochs": trainer.current_epoch,
            "planned_epochs": trainer.max_epochs,
            "steps": trainer.global_step,
            "accumulated": trainer.accumulate_grad_batches,  # by which losses are divided
            "progress": 1.0 if is_last or math.isinf(planned) else trainer.global_step / max(planned, 1),
        }
        folder = Path(trainer.default_root_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(folder / FACTS) as partial:
                known = {name: value for name, value in self.facts.items() if value is not None and value == value}
                partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            return self._judge(trainer, folder, is_last)
        except Exception as error:  # a diagnosis must not end a training
            warn_once(f"Doctor failed: {type(error).__name__}: {error}. Training continues.")
            return False

    def _judge(self, trainer: Trainer, folder: Path, is_last: bool) -> bool:
        """Judge the run, print a new alarm, and return whether there is one that counts.

        Before the first step and at the end, each counts; otherwise, one that two judgements in a row agree on, because
        a network passes through states that look like faults.
        """
        cause, lines = self.judge(folder) if self.judge is not None else (None, [])
        counts = cause is not None and (is_last or trainer.global_step == 0 or cause == self._latest)
        self._latest = cause
        if counts and cause not in self._printed:
            self._printed.add(str(cause))
            print("\n".join(lines), flush=True)
            LogSnapshot(trainer).text("doctor", "\n".join(f"    {line}" for line in lines))
        return counts


def scaler_of(trainer: Trainer) -> Any:
    """Return the gradient scaler of fp16, or None."""
    return getattr(trainer.precision_plugin, "scaler", None)


def distance(new: Iterable[Tensor], old: Iterable[Tensor]) -> float:
    """Return the norm of the difference of two lists of tensors."""
    return float(get_total_norm([after.detach() - before for after, before in zip(new, old, strict=True)]))
