"""Train an image classifier."""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from lightning_modules.base import ImageModule
from lightning_modules.losses import balanced, for_classes, losses_of_images, per_image
from lightning_modules.tta import View, mean_over_views, predicted_classes, probabilities


class ImageClassifier(ImageModule):
    """A network that returns logits, with its loss and metrics.

    Batches are ``images``, float32 ``(N, C, H, W)``, normalised, and ``targets``, int64 ``(N,)``, or float
    ``(N, num_classes)`` for mixed images; in validation and test also ``(N, V, C, H, W)``, views of one image each.
    Logs ``train/loss``, ``train/acc``, ``val/loss``, ``val/acc``, ``test/loss``, ``test/acc`` (means over an epoch and
    all devices; accuracies from 0 to 1), ``test/acc/<class>`` for each class with test images, and ``train/loss_step``
    (one step on one device). Validation and test steps return
    ``{"loss": ..., "preds": int64 (N,), "logits": (N, num_classes)}`` for callbacks.

    Args:
        class_names: Name of each class, from the data.
        loss: Called with logits ``(N, num_classes)`` and targets; cross-entropy by default. In a config, ``weight`` and
            ``pos_weight`` of torch's losses are lists of numbers, one per class. ``ignore_index`` changes no metric.
        class_weights: "balanced" weights each class in the training loss by the inverse of its number of training
            images, with a mean of 1 over the training images.
        tta: Test-time augmentation: views of each image whose logits are averaged in ``test``, ``predict`` and
            ``classify``, never in validation; see ``mean_over_views``.
        **kwargs: See ``ImageModule``.

    Raises:
        MisconfigurationException: The network's output is not one logit per class, or the loss has no class weights.
    """

    def __init__(
        self,
        class_names: list[str],
        loss: nn.Module | None = None,
        class_weights: Literal["balanced"] | None = None,
        tta: list[View] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_names=class_names, width=len(class_names), **kwargs)
        if self.output_shape != (1, len(class_names)):
            raise MisconfigurationException(
                f"Expected a network that returns logits (1, {len(class_names)}), but {type(self.network).__name__} "
                f"returns {self.output_shape}. Its first argument, the number of classes, must set their number."
            )
        self.loss = for_classes(loss or nn.CrossEntropyLoss(), len(class_names))
        self.unweighted_loss: nn.Module | None = None  # for means over batches that do not depend on their classes
        if class_weights == "balanced":
            self.unweighted_loss, self.loss = self.loss, balanced(self.loss, self.hparams["class_counts"])
        self.tta = tta or []
        self.val_acc = MulticlassAccuracy(len(class_names), average="micro", validate_args=False)
        self.test_acc = self.val_acc.clone()
        self.test_scores = MulticlassStatScores(len(class_names), average="none", validate_args=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        logits = self(images)
        loss, mean_loss = self.training_loss(logits, images, targets)
        labels = targets.argmax(1) if targets.is_floating_point() else targets  # class of the largest share if mixed
        hits = logits.detach().argmax(1) == labels  # like predicted_classes, but without a softmax in each step
        self.log_training(len(labels), loss=mean_loss, acc=hits.sum() / len(labels))
        return loss

    def training_loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss for the backward pass, and its mean over the images of the batch for logging."""
        loss = self.loss(logits, targets)
        return loss, per_image(self.loss, loss.detach(), len(targets))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self._evaluate("val", batch, self.val_acc)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        outputs = self._evaluate("test", batch, self.test_acc)
        self.test_scores.update(outputs["preds"], batch[1])
        return outputs

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the probability of each class, ``(N, num_classes)``, for the images of a batch."""
        return probabilities(mean_over_views(self, batch[0], self.tta))

    def on_test_epoch_end(self) -> None:
        """Log the accuracy of each class that has test images."""
        scores = self.test_scores.compute()
        right, images = scores[:, 0].tolist(), scores[:, -1].tolist()
        per_class = zip(self.class_names, right, images, strict=True)
        accuracies = {f"test/acc/{name}": hits / count for name, hits, count in per_class if count}
        self.log_dict(accuracies, sync_dist=True)  # already reduced over all devices; Lightning warns without sync_dist
        self.test_scores.reset()

    # Beyond Lightning's hooks

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """Return the probability of each class, ``(N, num_classes)``, for raw uint8 images ``(N, C, H, W)``.

        The module must be in eval mode, as ``load_from_checkpoint(...).eval()`` leaves it. The data's
        ``eval_transforms`` are not applied.

        Raises:
            ValueError: The images are not uint8, or do not have the size or channels that the network was trained on.
        """
        channels, size = len(self.mean), self.hparams["image_size"]
        if images.dtype != torch.uint8 or images.shape[1:] != (channels, size, size):
            raise ValueError(
                f"Expected raw uint8 images (N, {channels}, {size}, {size}), as in training, but got {images.dtype} "
                f"{tuple(images.shape)}. Resize them, for example with torchvision.transforms.v2.functional.resize."
            )
        return probabilities(mean_over_views(self, self.normalize(images), self.tta))

    def image_losses(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        """Return the validation loss of each image, float ``(N,)``; None if the loss does not provide it.

        ``logits`` are ``(N, num_classes)``, ``targets`` int64 ``(N,)``.
        """
        return losses_of_images(self.unweighted_loss or self.loss, logits, targets)

    # Helpers

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], accuracy: Metric) -> dict[str, Tensor]:
        images, targets = batch
        logits = mean_over_views(self, images, self.tta if stage == "test" else [])
        measure = self.unweighted_loss or self.loss
        loss = per_image(self.loss, measure(logits.to(self.dtype), targets), len(targets))  # bf16-true casts its weight
        preds = predicted_classes(logits)
        accuracy.update(preds, targets)
        self.log_mean(f"{stage}/loss", loss, len(targets))
        self.log(f"{stage}/acc", accuracy, prog_bar=stage == "val")
        return {"loss": loss, "preds": preds, "logits": logits}
