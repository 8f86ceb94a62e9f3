"""Collect the predictions of a whole validation or test once for all callbacks that use them."""

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.base.drawing import DrawingCallback
from callbacks.tools.transfer import to_cpu

MOST_COLUMNS = 100  # classes whose probability is stored for every image: 20 MB for 50,000 images


class Predictions(NamedTuple):
    """Predictions for all images of an epoch, from all devices, on the CPU; without those of ``ignore_index``."""

    targets: Tensor  # true classes, int64 (N,)
    preds: Tensor  # predicted classes, int64 (N,)
    confidences: Tensor  # probability of the predicted class, float (N,); NaN if the module returns no logits
    losses: Tensor  # loss of each image, float (N,); NaN if the module does not provide it
    probabilities: Tensor  # probabilities of the first 100 classes, float (N, <= 100)


class PredictionCallback(DrawingCallback):
    """Use the predictions of a whole validation or test; subclasses override ``on_predictions``.

    Needs a module with ``class_names`` whose ``validation_step`` and ``test_step`` return a dict with ``preds``, int64
    ``(N,)``, and for some callbacks with ``logits``, ``(N, classes)``. An optional method
    ``image_losses(logits, targets)`` returns the loss of each image.

    Args:
        every_n_epochs: Run in every n-th epoch and the last planned one; always in ``validate`` and ``test``.
    """

    needs_classifier = True
    required_outputs: tuple[str, ...] = ("preds",)
    _collector: "Collector | None" = None

    def on_predictions(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, predictions: Predictions
    ) -> None:
        """Process all predictions; called on rank zero.

        Args:
            trainer: Trainer to pass to ``draw_later``.
            pl_module: Module that made the predictions.
            stage: "val" or "test".
            predictions: Predictions for all images.
        """
        raise NotImplementedError

    def collect_batch(self, outputs: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        """Collect other data of a batch than its predictions; subclasses may override it."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._collector = None
        if self.due(trainer):
            if trainer not in _collectors:
                _collectors[trainer] = Collector()
            self._collector = _collectors[trainer]

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
        if self._collector is None and batch_idx:
            return
        missing = [key for key in self.required_outputs if not isinstance(outputs, dict) or key not in outputs]
        if missing:
            got = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
            required = "` and `".join(self.required_outputs)
            names = ", ".join(type(item).__name__ for item in trainer.callbacks if isinstance(item, PredictionCallback))  # type: ignore[attr-defined]  # set elsewhere in Lightning
            raise MisconfigurationException(
                f"Expected validation_step and test_step to return a dict with `{required}` for {type(self).__name__}, "
                f"but got {got}. Return it, or switch off what needs predictions (--callbacks.NAME false): {names}."
            )
        if self._collector is None:  # in the sanity check, or in an epoch without this callback
            return
        self._collector.take(pl_module, outputs, batch[1], (dataloader_idx, batch_idx))
        if not dataloader_idx:
            self.collect_batch(outputs, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        _collectors.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._collector is None:
            return
        predictions = self._collector.compute(trainer.world_size)  # on every rank, because it gathers from all of them
        self._collector = None
        _collectors.pop(trainer, None)  # the other callbacks have a reference
        if trainer.is_global_zero and len(predictions.targets):
            self.on_predictions(trainer, pl_module, stage, predictions)


class Collector:
    """Store the predictions for each image on the device; ``compute`` transfers all of them to the CPU at once.

    Attributes:
        batches: Predictions of each batch, on the device.
        ignored: Target that the loss ignores.
    """

    def __init__(self) -> None:
        self.batches: list[Predictions] = []
        self.ignored = -100  # the default of torch's losses
        self._last: Any = None
        self._computed: Predictions | None = None

    def take(self, pl_module: LightningModule, outputs: dict[str, Tensor], targets: Tensor, number: Any) -> None:
        """Add a batch unless another callback has already added it."""
        if number == self._last:
            return
        self._last = number
        loss = getattr(pl_module, "loss", None)
        self.ignored = getattr(getattr(loss, "loss", loss), "ignore_index", self.ignored)
        preds, logits = outputs["preds"], outputs.get("logits")
        losses: Callable[[Tensor, Tensor], Tensor | None] | None = getattr(pl_module, "image_losses", None)
        each = losses(logits, targets) if losses is not None and logits is not None else None
        unknown = torch.full((len(targets),), torch.nan, device=preds.device)
        shares = unknown[:, None] if logits is None else logits.float().softmax(1)
        confidences = unknown if logits is None else shares.gather(1, preds[:, None])[:, 0]
        columns = shares[:, :MOST_COLUMNS].clone()  # a view would keep all columns in memory
        self.batches.append(
            Predictions(targets, preds, confidences, unknown if each is None else each.float(), columns)
        )

    def compute(self, world_size: int) -> Predictions:
        """Return all predictions, in the order of the ranks, on the CPU."""
        if self._computed is None:
            columns = zip(Predictions._fields, zip(*self.batches, strict=True), strict=True)
            ranks: list[Any] = [to_cpu({name: torch.cat(column) for name, column in columns})]
            if world_size > 1:
                ranks, own = [None] * world_size, ranks[0]
                torch.distributed.all_gather_object(ranks, own)
            joined = {name: torch.cat([rank[name] for rank in ranks]) for name in Predictions._fields}
            joined |= {name: joined[name].long() for name in ("targets", "preds")}
            counted = joined["targets"] != self.ignored
            self._computed = Predictions(**{name: values[counted] for name, values in joined.items()})
        return self._computed


_collectors: WeakKeyDictionary[Trainer, Collector] = WeakKeyDictionary()
