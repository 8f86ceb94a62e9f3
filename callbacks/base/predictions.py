"""What a module said of every image of a validation or test, gathered once for all callbacks that look at it."""

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

MOST_COLUMNS = 100  # classes whose probability is kept for every image: 20 MB for 50,000 images


class Predictions(NamedTuple):
    """All images of an epoch but those that the loss ignores (``ignore_index``), over all devices, on the CPU."""

    targets: Tensor  # true class of each, int64 (N,)
    preds: Tensor  # class that was chosen, int64 (N,)
    confidences: Tensor  # probability of that class, float (N,); NaN if the module gave no logits
    losses: Tensor  # loss of each image, float (N,); NaN where the module cannot tell
    probabilities: Tensor  # of the first 100 classes, float (N, <= 100)


class PredictionCallback(DrawingCallback):
    """A callback that looks at the predictions of a whole validation or test: ``show`` is to be overridden.

    Needs a module whose ``validation_step`` and ``test_step`` return a dict with ``preds``, int64 ``(N,)``, for some
    callbacks also with ``logits``, ``(N, classes)``, and that has ``class_names``. Its ``image_losses(logits,
    targets)``, if it has one, gives the loss of each image.

    Args:
        every_n_epochs: Look at each n-th epoch, and the last planned one; in ``validate`` and ``test`` always.
    """

    required_outputs: tuple[str, ...] = ("preds",)
    _collector: "Collector | None" = None

    def on_predictions(self, trainer: Trainer, pl_module: LightningModule, stage: str, found: Predictions) -> None:
        """Look at all predictions; called on rank zero.

        Args:
            trainer: Whose ``draw_later`` this may call.
            pl_module: Module that predicted.
            stage: "val" or "test".
            found: The predictions.
        """
        raise NotImplementedError

    def see_batch(self, outputs: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
        """Keep what is needed of a batch besides its predictions; to be overridden."""

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
            raise MisconfigurationException(
                f"Expected validation_step and test_step to return a dict with `{required}` for {type(self).__name__}, "
                f"but got {got}. Return it, or take the callback out of the config."
            )
        if self._collector is None:  # the sanity check, or an epoch that is not looked at
            return
        self._collector.take(pl_module, outputs, batch[1], (dataloader_idx, batch_idx))
        if not dataloader_idx:
            self.see_batch(outputs, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _collectors.pop(trainer, None)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _collectors.pop(trainer, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        _collectors.pop(trainer, None)
        super().on_exception(trainer, pl_module, exception)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._collector is None:
            return
        found = self._collector.compute()  # on every rank: it gathers from all of them
        self._collector = None
        # torchmetrics takes the dimensions of a single image away
        targets, preds, confidences, losses = map(torch.atleast_1d, found[:-1])
        found = Predictions(targets, preds, confidences, losses, torch.atleast_2d(found.probabilities))
        if trainer.is_global_zero and len(found.targets):
            self.on_predictions(trainer, pl_module, stage, found)


class Collector(Metric):
    """Keeps what a module said of each image on its device; ``compute`` brings all of it to the CPU at once."""

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
        self.ignored = -100  # targets whose images the loss ignores; -100 is what torch's losses take for none

    def take(self, pl_module: LightningModule, outputs: dict[str, Tensor], targets: Tensor, number: Any) -> None:
        """Add a batch, unless another callback has done so already."""
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
        self.probabilities.append(shares[:, :MOST_COLUMNS].clone())  # a view would hold all columns

    def compute(self) -> Predictions:
        """Return all predictions, in the order of the ranks, on the CPU."""
        # a list before, one tensor after the ranks were put together
        states = {name: getattr(self, name) for name in Predictions._fields}
        tensors = {name: torch.cat(list(one)) if isinstance(one, list) else one for name, one in states.items()}
        found = Predictions(**to_cpu(tensors))
        found = found._replace(targets=found.targets.long(), preds=found.preds.long())
        counted = found.targets != self.ignored
        return Predictions(*(one[counted] for one in found))


_collectors: WeakKeyDictionary[Trainer, Collector] = WeakKeyDictionary()
