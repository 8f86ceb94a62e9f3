"""Collect the predictions of a whole validation or test once for all callbacks that use them."""

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics import Metric

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
                _collectors[trainer] = Collector().to(pl_module.device)
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
            others = [item for item in trainer.callbacks if isinstance(item, PredictionCallback)]  # type: ignore[attr-defined]  # set elsewhere in Lightning
            names = ", ".join(type(item).__name__ for item in others)
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
        predictions = self._collector.compute()  # on every rank, because it gathers from all of them
        self._collector = None
        _collectors.pop(trainer, None)  # the other callbacks have a reference
        # torchmetrics removes the dimension of a single image
        targets, preds, confidences, losses = map(torch.atleast_1d, predictions[:-1])
        probabilities = torch.atleast_2d(predictions.probabilities)
        predictions = Predictions(targets, preds, confidences, losses, probabilities)
        if trainer.is_global_zero and len(predictions.targets):
            self.on_predictions(trainer, pl_module, stage, predictions)


class Collector(Metric):
    """Store the predictions for each image on the device; ``compute`` transfers all of them to the CPU at once."""

    full_state_update = False
    targets: list[Tensor]
    preds: list[Tensor]
    confidences: list[Tensor]
    losses: list[Tensor]
    probabilities: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in Predictions._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._last: tuple[int, int] | None = None
        self.ignored = -100  # target that the loss ignores; -100 is the default of torch's losses

    def take(self, pl_module: LightningModule, outputs: dict[str, Tensor], targets: Tensor, number: Any) -> None:
        """Add a batch unless another callback has already added it."""
        if number == self._last:
            return
        self._last = number
        loss = getattr(pl_module, "loss", None)
        self.ignored = getattr(getattr(loss, "loss", loss), "ignore_index", self.ignored)
        losses: Callable[[Tensor, Tensor], Tensor | None] | None = getattr(pl_module, "image_losses", None)
        each = losses(outputs["logits"], targets) if losses is not None and "logits" in outputs else None
        self.update(targets, outputs["preds"], outputs.get("logits"), each)

    def update(self, targets: Tensor, preds: Tensor, logits: Tensor | None, losses: Tensor | None) -> None:
        """Add the images of a batch."""
        unknown = torch.full((len(targets),), torch.nan, device=preds.device)
        self.targets.append(targets)
        self.preds.append(preds)
        self.losses.append(unknown if losses is None else losses.float())
        if logits is None:
            self.confidences.append(unknown)
            self.probabilities.append(unknown[:, None])
            return
        shares = logits.float().softmax(1)
        self.confidences.append(shares.gather(1, preds[:, None])[:, 0])
        self.probabilities.append(shares[:, :MOST_COLUMNS].clone())  # a view would keep all columns in memory

    def compute(self) -> Predictions:
        """Return all predictions, in the order of the ranks, on the CPU."""
        # a list in a single process, one tensor after gathering from several ranks
        states = {name: getattr(self, name) for name in Predictions._fields}
        tensors = {name: torch.cat(list(state)) if isinstance(state, list) else state for name, state in states.items()}
        predictions = Predictions(**to_cpu(tensors))
        predictions = predictions._replace(targets=predictions.targets.long(), preds=predictions.preds.long())
        counted = predictions.targets != self.ignored
        return Predictions(*(field[counted] for field in predictions))


_collectors: WeakKeyDictionary[Trainer, Collector] = WeakKeyDictionary()
