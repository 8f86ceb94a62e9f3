"""Collect the predictions of a whole validation or test once for all callbacks that use them."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.tools.layers import names_of
from callbacks.tools.transfer import from_all_ranks, to_cpu

MOST_COLUMNS = 100  # classes whose probability is stored for every image: 20 MB for 50,000 images


class Predictions(NamedTuple):
    """Predictions for all images of an epoch, from all devices, on the CPU."""

    class_names: list[str]
    targets: Tensor  # true classes, int64 (N,)
    preds: Tensor  # predicted classes, int64 (N,)
    confidences: Tensor  # probability of the predicted class, float (N,)
    losses: Tensor  # loss of each image, float (N,); NaN if the module does not provide it
    probabilities: Tensor  # probabilities of the first 100 classes, float (N, <= 100)


class PredictionCallback(DrawingCallback):
    """Use the predictions of a whole validation or test; subclasses override ``draw(log, stage, predictions)``.

    ``stage`` is "val" or "test". Needs a module whose ``validation_step`` and ``test_step`` return a dict with
    ``preds``, int64 ``(N,)``, and ``logits``, ``(N, classes)``. An optional method ``image_losses(logits, targets)``
    of the module returns the loss of each image. In ``validate`` and ``test``, the callback always runs.
    """

    needs_classifier = True
    _collector: "Collector | None" = None

    def collect_batch(self, collected: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        """Collect other data of a batch than its predictions, which are ``collected``; subclasses may override it."""

    def gather(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> tuple[Any, ...]:
        """Return further arguments of ``draw``, from all ranks; subclasses may override it. Called on every rank."""
        return ()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._collector = _collectors.setdefault(trainer, Collector()) if self.due(trainer) else None

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, dict) or not {"preds", "logits"} <= set(outputs):  # also in the sanity check
            raise MisconfigurationException(
                f"Expected a dict with `preds` and `logits` from validation_step and test_step for "
                f"{type(self).__name__}. Return them, or switch it off with --callbacks.NAME false."
            )
        if self._collector is None:  # in the sanity check, or in an epoch without this callback
            return
        collected = self._collector.take(pl_module, outputs, batch[1], (dataloader_idx, batch_idx))
        if not dataloader_idx:
            self.collect_batch(collected, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val", trainer.val_dataloaders)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "test", trainer.test_dataloaders)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        _collectors.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str, loader: Any) -> None:
        if self._collector is None:
            return
        predictions = self._collector.compute(pl_module, trainer.world_size)
        others = self.gather(trainer, pl_module, loader[0] if isinstance(loader, list) else loader)
        self._collector = None
        _collectors.pop(trainer, None)  # the other callbacks have a reference
        if len(predictions.targets):
            self.draw_later(trainer, stage, predictions, *others)


class Collector:
    """Store the predictions for each image on the device; ``compute`` transfers all of them to the CPU at once."""

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []
        self._classes = 0
        self._number: Any = None  # of the last batch
        self._computed: Predictions | None = None

    def take(
        self, pl_module: LightningModule, outputs: dict[str, Tensor], targets: Tensor, number: Any
    ) -> dict[str, Tensor]:
        """Add a batch, unless another callback has already added it, and return its predictions."""
        if number == self._number:
            return self._batches[-1]
        logits, preds = outputs["logits"], outputs["preds"]
        self._number, self._classes = number, logits.shape[1]
        image_losses: Any = getattr(pl_module, "image_losses", None)
        losses = image_losses(logits, targets) if image_losses else None
        shares = logits.float().softmax(1)
        batch = {
            "targets": targets,
            "preds": preds,
            "confidences": shares.gather(1, preds[:, None])[:, 0],
            "losses": torch.full_like(shares[:, 0], torch.nan) if losses is None else losses.float(),
            "probabilities": shares[:, :MOST_COLUMNS].clone(),  # a view would keep all columns in memory
        }
        self._batches.append(batch)
        return batch

    def compute(self, pl_module: LightningModule, world_size: int) -> Predictions:
        """Return all predictions, in the order of the ranks, on the CPU."""
        if self._computed is None:
            own = to_cpu({name: torch.cat([batch[name] for batch in self._batches]) for name in self._batches[0]})
            ranks = from_all_ranks(own, world_size)
            columns = {name: torch.cat([rank[name] for rank in ranks]) for name in own}
            columns |= {name: columns[name].long() for name in ("targets", "preds")}
            self._computed = Predictions(names_of(pl_module, self._classes), **columns)
        return self._computed


_collectors: WeakKeyDictionary[Trainer, Collector] = WeakKeyDictionary()
