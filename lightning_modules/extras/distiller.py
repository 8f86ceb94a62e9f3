"""Train a classifier by knowledge distillation."""

from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.classifier import ImageClassifier
from lightning_modules.losses import per_image
from lightning_modules.weights.pretrained import some
from lightning_modules.weights.safe_load import load_safely


class Distiller(ImageClassifier):
    """An image classifier, the student, that also learns from the probabilities of a trained one, the teacher.

    The training loss is ``(1 - alpha) * loss + alpha * temperature ** 2 * KLDiv`` per image, where KLDiv is the
    Kullback-Leibler divergence of the student's probabilities from the teacher's, both computed from logits divided by
    the temperature; ``loss`` is averaged even if its reduction is "sum". ``train/loss`` is the training loss,
    ``val/loss`` and ``test/loss`` are only ``loss``. The teacher is loaded when training starts; the student's
    checkpoint neither contains nor needs it.

    Source: Hinton et al., 2015, "Distilling the knowledge in a neural network".

    Args:
        teacher: Checkpoint of an ``ImageClassifier`` of the same classes, in any order, image size and channels.
        temperature: The higher it is, the more weight unlikely classes of the teacher have.
        alpha: Weight of the teacher in the loss, from 0 to 1.
        **kwargs: See ``ImageClassifier``.
    """

    def __init__(
        self, teacher: str, temperature: PositiveFloat = 4.0, alpha: ClosedUnitInterval = 0.9, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.teacher = teacher
        self.temperature = temperature
        self.alpha = alpha
        self.divergence = nn.KLDivLoss(reduction="batchmean")
        self._teacher: list[ImageClassifier] = []  # in a list, so that it is not registered as a submodule

    def load_teacher(self) -> None:
        """Load the teacher, in eval mode and without gradients.

        Raises:
            MisconfigurationException: It cannot be loaded, or its classes, image size or channels differ.
        """
        try:
            load_safely(self.teacher)  # for its error messages: torch's advice is to load the file unsafely
            teacher = ImageClassifier.load_from_checkpoint(self.teacher, map_location="cpu", weights_only=True)
        except Exception as error:  # loading another file can raise almost any exception
            raise MisconfigurationException(
                f"Expected a checkpoint of an ImageClassifier at --model.teacher, but {self.teacher} "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        size, differing = teacher.hparams["image_size"], {*teacher.class_names} ^ {*self.class_names}
        channels = len(teacher.mean)
        if differing or size != self.hparams["image_size"] or channels != len(self.mean):
            raise MisconfigurationException(
                f"Expected a --model.teacher with the classes of the data, image_size {self.hparams['image_size']} and "
                f"{len(self.mean)} channels, but {self.teacher} has image_size {size}, {channels} channels, and other "
                f"classes: {some(sorted(differing)) or 'none'}."
            )
        self._teacher[:] = [teacher.eval().requires_grad_(False).to(self.device)]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.load_teacher()

    def training_loss(self, logits: Tensor, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training loss, once for the backward pass and once for logging."""
        own = per_image(self.loss, self.loss(logits, targets), len(targets))
        loss = (1 - self.alpha) * own + self.alpha * self._distance(logits, images)
        return loss, loss.detach()

    def _distance(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the divergence from the teacher's probabilities, on the scale of a loss at temperature 1."""
        teacher = self._teacher[0]
        with torch.no_grad():
            # use the teacher's normalisation, because it may have been trained on other images
            answers = teacher((images * self.std + self.mean - teacher.mean) / teacher.std)
            if teacher.class_names != self.class_names:
                answers = answers[:, [teacher.class_names.index(name) for name in self.class_names]]
        student = (logits.float() / self.temperature).log_softmax(1)
        return self.divergence(student, (answers.float() / self.temperature).softmax(1)) * self.temperature**2
