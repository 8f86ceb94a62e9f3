"""Train a network to tell classes of images apart."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.param_groups import ParamGroup, build_param_groups, freeze, param_group_table
from lightning_modules.pretrained import load_pretrained


class ImageClassifier(LightningModule):
    """A network, its loss, optimizer and schedule.

    Batches are ``images``, float32 ``(N, 3, H, W)``, normalised, and ``targets``, int64 ``(N,)``, or float
    ``(N, num_classes)`` for mixed images; in validation and test also ``(N, V, 3, H, W)``, views of one image each.
    Logs ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss``, ``test/acc`` (means over an epoch and
    all devices; accuracies from 0 to 1), ``test/acc/<class>``, and ``train/loss_step`` (one step on one device).
    Validation and test steps return ``{"loss": ..., "preds": int64 (N,)}`` for callbacks.

    The last five arguments come from the data, never from a config, and are kept in the checkpoint. That of a module
    made by the command line needs nothing else: ``ImageClassifier.load_from_checkpoint(file).eval().classify(images)``.

    Args:
        network: Class of the network; it is called with the number of classes.
        optimizer: Class of the optimizer.
        lr_scheduler: Class of the schedule. ``OneCycle`` and torch's ``OneCycleLR`` learn ``total_steps`` from the
            trainer; the latter reaches ``max_lr`` in a group with the optimizer's own lr, proportionally in others.
            ``ReduceLROnPlateau`` watches ``val/loss``, or the ``monitor`` of lightning.pytorch.cli's class.
        lr_interval: Step the schedule each "step" or "epoch"; by default what its class is made for.
        loss: Called with logits ``(N, num_classes)`` and targets; cross-entropy by default.
        param_groups: Ordered rules of learning rate, weight decay and freezing by parameter name.
        pretrained: File of weights to start from.
        channels_last: Lay images out as NHWC in memory: faster convolutions on most hardware.
        class_weights: "balanced" weighs each class in the training loss by the inverse of its number of training
            images, with a mean of 1 over those images.
        class_names: Name of each class.
        mean: Mean of R, G and B that the data was normalised with, on the scale of 0 to 1.
        std: Standard deviation, likewise.
        image_size: Side of the images in pixels.
        class_counts: Number of training images of each class.

    Raises:
        MisconfigurationException: The network's output has not one logit a class, or the loss cannot weigh classes.
    """

    def __init__(
        self,
        network: Callable[[int], nn.Module],
        optimizer: OptimizerCallable,
        class_names: list[str],
        mean: list[float],
        std: list[float],
        image_size: int,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] | None = None,
        loss: nn.Module | None = None,
        param_groups: list[ParamGroup] | None = None,
        pretrained: str | None = None,
        channels_last: bool = False,
        class_weights: Literal["balanced"] | None = None,
        class_counts: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.class_names = class_names
        self.network = network(len(class_names))
        self.loss = loss or nn.CrossEntropyLoss()
        self._unweighted_loss: list[nn.Module] = []  # in a list, so that it is no part of the module
        if class_weights is not None:
            self._weigh_classes(class_counts)
        self.optimizer_class = optimizer
        self.lr_scheduler_class = lr_scheduler
        self.lr_interval = lr_interval
        self.param_groups = param_groups or []
        self.pretrained = pretrained
        self.channels_last = channels_last
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.example_input_array = torch.zeros(1, 3, image_size, image_size)  # for the model summary
        self._check_output_width()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        freeze(self.network, self.param_groups)

        accuracy = MulticlassAccuracy(len(class_names), average="micro", validate_args=False)
        self.train_loss = MeanMetric(nan_strategy="disable")  # the others look at each value, and wait for the device
        self.train_acc, self.val_acc, self.test_acc = accuracy, accuracy.clone(), accuracy.clone()
        self.test_acc_per_class = MulticlassAccuracy(len(class_names), average="none", validate_args=False)

    def configure_optimizers(self) -> Any:
        """Build param groups, optimizer and schedule, and print the groups."""
        groups = build_param_groups(self.network, self.param_groups, self._base_lr())
        optimizer = self.optimizer_class(groups)
        configured: dict[str, Any] = {"optimizer": optimizer}
        if self.lr_scheduler_class is not None:
            configured["lr_scheduler"] = self._build_scheduler(optimizer)
        if self.trainer.is_global_zero:
            rich_print(param_group_table(self.network, self.param_groups, optimizer.param_groups))
        return configured

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Forget the pretrained weights: the checkpoint's are here, and the file may be on another machine."""
        if self.pretrained is not None:
            rank_zero_info(f"{self.pretrained} is not loaded: the checkpoint has weights that came after it.")
        self.pretrained = None

    def on_fit_start(self) -> None:
        self._load_pretrained()

    def on_validation_start(self) -> None:
        self._load_pretrained(whole=True)

    def on_test_start(self) -> None:
        self._load_pretrained(whole=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of normalised images."""
        images = images.to(self.dtype)  # bf16-true and the like
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, targets = batch
        logits = self(images)
        loss = self.loss(logits, targets)
        labels = targets.argmax(1) if targets.is_floating_point() else targets  # of the larger share, if mixed
        self.train_acc.update(logits.detach(), labels)
        self.train_loss.update(loss.detach(), len(images))
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch of validation images."""
        return self._evaluate("val", batch, self.val_acc, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Measure a batch of test images."""
        outputs = self._evaluate("test", batch, self.test_acc)
        self.test_acc_per_class.update(outputs["preds"], batch[1])
        return outputs

    def on_test_epoch_end(self) -> None:
        """Log the accuracy of each class."""
        per_class = zip(self.class_names, self.test_acc_per_class.compute(), strict=True)
        self.log_dict({f"test/acc/{name}": value for name, value in per_class})
        self.test_acc_per_class.reset()

    # Beyond Lightning's hooks

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images ``(N, 3, H, W)`` as the network wants them."""
        return (images.to(self.mean.device) / 255 - self.mean) / self.std

    def denormalize(self, images: Tensor) -> Tensor:
        """Return normalised images ``(N, 3, H, W)`` as float from 0 to 1."""
        return (images * self.std + self.mean).clamp(0, 1)

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """Return the probability of each class, ``(N, num_classes)``, for raw uint8 RGB images ``(N, 3, H, W)``.

        The module must be in eval mode, as ``load_from_checkpoint(...).eval()`` leaves it.

        Raises:
            ValueError: The images are not uint8.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"Expected raw uint8 images (N, 3, H, W), 0 to 255, but got {images.dtype}.")
        return self(self.normalize(images)).softmax(1)

    # Helpers

    def _evaluate(
        self, stage: str, batch: tuple[Tensor, Tensor], accuracy: Metric, prog_bar: bool = False
    ) -> dict[str, Tensor]:
        images, targets = batch
        logits = self._logits_of_views(images) if images.ndim == 5 else self(images)
        # class weights would make a mean over batches depend on how classes fall into them
        loss = (self._unweighted_loss or [self.loss])[0](logits, targets)
        preds = logits.argmax(1)
        accuracy.update(preds, targets)
        self.log(f"{stage}/loss", loss, batch_size=len(images), sync_dist=True)  # a schedule may watch it on each rank
        self.log(f"{stage}/acc", accuracy, prog_bar=prog_bar)
        return {"loss": loss, "preds": preds}

    def _logits_of_views(self, images: Tensor) -> Tensor:
        """Return the mean of the logits of all views of each image, ``(N, V, 3, H, W)``."""
        return self(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1)

    def _weigh_classes(self, class_counts: list[int] | None) -> None:
        if class_counts is None or not hasattr(self.loss, "weight"):
            what = "counts of its classes from the data" if class_counts is None else "a loss that has class weights"
            got = "none" if class_counts is None else type(self.loss).__name__
            raise MisconfigurationException(f"Expected {what} for --model.class_weights balanced, but got {got}.")
        if self.loss.weight is not None:
            raise MisconfigurationException("Expected a loss without weights for --model.class_weights balanced.")
        self._unweighted_loss = [copy.deepcopy(self.loss)]
        counts = torch.tensor(class_counts, dtype=torch.float64)
        self.loss.weight = (counts.sum() / (len(counts) * counts)).float()

    def _load_pretrained(self, whole: bool = False) -> None:
        """Load the pretrained weights once: only by now is it known whether a checkpoint replaces them."""
        if self.pretrained is not None:
            load_pretrained(self.network, self.pretrained, whole)
            self.pretrained = None

    def _base_lr(self) -> float:
        """Return the optimizer's own learning rate, whether given or its default."""
        return self.optimizer_class([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]

    def _build_scheduler(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        assert self.lr_scheduler_class is not None
        extra: dict[str, Any] = {}
        if (given := _arguments_of(self.lr_scheduler_class, OneCycleLR)) is not None:
            if given.get("total_steps") is None and given.get("epochs") is None:
                extra["total_steps"] = self._total_steps()
            # one number for all groups would undo their own learning rates
            if isinstance(given.get("max_lr"), int | float):
                base_lr = self._base_lr()
                extra["max_lr"] = [given["max_lr"] * group["lr"] / base_lr for group in optimizer.param_groups]
        scheduler = self.lr_scheduler_class(optimizer, **extra)
        interval = self.lr_interval or ("step" if isinstance(scheduler, OneCycleLR | CyclicLR) else "epoch")
        configured: dict[str, Any] = {"scheduler": scheduler, "interval": interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            configured["monitor"] = getattr(scheduler, "monitor", "val/loss")  # Lightning's own class has one to set
        return configured

    def _total_steps(self) -> int:
        """Return how often a schedule over the whole training is stepped."""
        steps = self.trainer.max_epochs if self.lr_interval == "epoch" else self.trainer.estimated_stepping_batches
        if steps is None or not 0 < steps < float("inf"):
            raise MisconfigurationException(
                "Expected a number of epochs or steps for OneCycleLR, whose end must be known, but training has none. "
                "Give --trainer.max_epochs or --trainer.max_steps, or its total_steps."
            )
        return int(steps)

    def _check_output_width(self) -> None:
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            with torch.no_grad():
                shape = tuple(self.network(self.example_input_array).shape)
        except RuntimeError as error:
            size = self.hparams["image_size"]
            raise MisconfigurationException(
                f"{type(self.network).__name__} cannot take images of {size}x{size} pixels: {error}. Give a "
                "--data.image_size that it is made for, or another network."
            ) from error
        for module in training:
            module.training = True
        if shape != (1, len(self.class_names)):
            raise MisconfigurationException(
                f"Expected a network that makes logits (1, {len(self.class_names)}) of an image, one for each class of "
                f"the data, but {type(self.network).__name__} makes {shape}. Its first argument must be the number of "
                "classes, and set the width of its output."
            )


def _arguments_of(factory: Any, cls: type) -> dict[str, Any] | None:
    """Return the arguments of a class that a callable is a partial of, given in Python or made by jsonargparse."""
    if not isinstance(factory, partial):
        return None
    made = [one for one in (factory.func, *factory.args) if isinstance(one, type) and issubclass(one, cls)]
    return factory.keywords if made else None
