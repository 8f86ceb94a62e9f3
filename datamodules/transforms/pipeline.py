"""The transforms of a data module, from decoded images to the input of a network."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules.errors import DataError
from datamodules.preparation.describe import Prepared
from datamodules.preparation.statistics import divisors
from datamodules.transforms.batch import Batch, BatchContext, BatchTransform
from datamodules.transforms.image import ImageTransform, compose, inner_transforms, normalization, seeded
from datamodules.transforms.normalize import Normalize

Normalization = tuple[list[float], list[float]]  # mean and standard deviation of R, G and B on the scale of 0 to 1
NOT_NORMALIZED: Normalization = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
BYTES = 10  # larger than a normalised 1, so an image with a higher value is on the scale of 0 to 255
FIT_IMAGES = 10_000  # training images that a transform is fitted to, unless it has a `num_images`


class Pipeline:
    """Per-image transforms, transforms of batches, and normalisation.

    Args:
        train: ``train_transforms`` of ``ImageDataModule``.
        evaluation: ``eval_transforms``.
        batch: ``batch_transforms``.
        normalize: Whether to normalise batches after them.
    """

    def __init__(
        self,
        train: Sequence[ImageTransform],
        evaluation: Sequence[ImageTransform],
        batch: Sequence[BatchTransform],
        normalize: bool,
    ) -> None:
        self.train = train
        self.evaluation = evaluation
        self.batch = batch
        self.normalize = normalize
        self._trained_with: Normalization | None = None  # see match
        self._normalizer = Normalize(*NOT_NORMALIZED)
        self._fitted: list[ImageTransform] = []

    def of_image(self, stage: str) -> Callable[[Tensor], Tensor] | None:
        """Return the per-image transforms of train, val or test, or None if there are none."""
        transforms = self.train if stage == "train" else self.evaluation
        return compose(transforms) if transforms else None

    def fit(self, prepared: Prepared, training: bool = False) -> None:
        """Check the transforms, fit those of evaluation and, if asked to, of training, and set the normalisation.

        Raises:
            DataError: Images would be normalised twice, or differently in training and evaluation.
        """
        check_normalization(self.train, self.evaluation, self.normalize)
        for transform in (*(self.train if training else ()), *self.evaluation):
            if hasattr(transform, "fit") and transform not in self._fitted:  # such as ZCAWhitening
                count = getattr(transform, "num_images", FIT_IMAGES)
                transform.fit(torch.from_numpy(prepared.training_images(count)))
                self._fitted.append(transform)
        if self.normalize:
            self._normalizer = Normalize(*self.normalization(prepared))

    def output_size(self, prepared: Prepared) -> int:
        """Return the side in pixels of images after ``eval_transforms``.

        Raises:
            DataError: They are not square, or their values are from 0 to 255, but floats.
        """
        self.fit(prepared)
        return int(transformed_white(self.evaluation, prepared.size, self.normalize).shape[-1])

    def check(self, prepared: Prepared, num_classes: int) -> None:
        """Transform white training images, so that mistakes are noticed before training.

        Raises:
            DataError: A transform fails, or ``batch_transforms`` change the scale of images.
        """
        images = torch.stack([transformed_white(self.train, prepared.size, self.normalize)] * 8)
        draw = BatchContext(torch.Generator().manual_seed(0), 0, torch.arange(8), 0, num_classes)
        try:
            with seeded(0):
                batch, _ = self._apply(images, torch.zeros(8, dtype=torch.int64), draw)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(f"--data.batch_transforms fail on images {tuple(images.shape[1:])}: {error}") from error
        before, after = images.max().item(), batch.max().item()
        if before > 0 and not before / 10 < after < before * 10:
            raise DataError(
                f"Expected --data.batch_transforms that keep the scale of images, but they map {before:.3g} to "
                f"{after:.3g}. Batches are normalised after them."
            )

    def normalization(self, prepared: Prepared) -> Normalization:
        """Return mean and standard deviation with which images are normalised here or by ``eval_transforms``."""
        if self._trained_with is not None:
            return self._trained_with
        if self.normalize:
            return prepared.stats.mean, divisors(prepared.stats.std)
        if not self.evaluation:
            return NOT_NORMALIZED
        self.fit(prepared)
        return normalization(compose(self.evaluation), prepared.size) or NOT_NORMALIZED

    def match(self, prepared: Prepared, trained_with: Normalization) -> None:
        """Normalise as for a checkpoint.

        Raises:
            DataError: Images are not normalised as those that it was trained on.
        """
        self._trained_with = None
        given = NOT_NORMALIZED if self.normalize else self.normalization(prepared)
        if self.normalize == (trained_with == NOT_NORMALIZED) and given == NOT_NORMALIZED:
            expected, got = str(not self.normalize).lower(), str(self.normalize).lower()
            raise DataError(f"Expected --data.normalize {expected}, as the checkpoint was trained, but got {got}.")
        if not self.normalize and not torch.allclose(torch.tensor(given), torch.tensor(trained_with), atol=1e-4):
            if trained_with != NOT_NORMALIZED:
                raise DataError(
                    f"Expected a Normalize with mean and std of {trained_with} in --data.eval_transforms, as the "
                    f"checkpoint was trained, but got {given}."
                )
            rank_zero_warn(  # earlier versions saved 0 and 1 even if the transforms normalised
                "The checkpoint has no mean and std. Images are normalised by --data.eval_transforms, with mean and "
                f"std of {given}: check that it was trained with these."
            )
        self._trained_with = trained_with
        self.fit(prepared)

    def augment(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return a batch of training images as the network receives it."""
        white = 255 if images.dtype == torch.uint8 else 1  # mixing converts uint8 to float on the same scale
        images, targets = self._apply(images, targets, draw)
        return self._normalizer(images, white), targets

    def normalized(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        """Return a batch as the network receives it, without augmentation."""
        return self._normalizer(images, 255 if images.dtype == torch.uint8 else 1), targets

    def _apply(self, images: Tensor, targets: Tensor, draw: BatchContext) -> Batch:
        if images.ndim != 4:
            raise DataError(
                f"Expected --data.train_transforms that return one view per image, but got {tuple(images.shape[1:])}. "
                "Use transforms with several views, such as FiveCrop, only in --data.eval_transforms."
            )
        for transform in self.batch:
            images, targets = transform(images, targets, draw)
        return images, targets


def check_normalization(train: Sequence[ImageTransform], evaluation: Sequence[ImageTransform], normalize: bool) -> None:
    """Raise DataError unless images are normalised once, and equally in training and evaluation.

    Only torchvision's ``Normalize`` is recognised.
    """
    first, second = normalizers(train), normalizers(evaluation)
    if normalize and (first or second):
        raise DataError(
            f"Images would be normalised twice: --data.{'train' if first else 'eval'}_transforms contain a Normalize. "
            "Remove it, or use --data.normalize false."
        )
    if len(first) != len(second) or not np.allclose(first, second, atol=1e-3):
        got = [" and ".join(f"mean {mean} and std {std}" for mean, std in pairs) or "none" for pairs in (first, second)]
        raise DataError(
            f"Expected the same Normalize in --data.train_transforms and eval_transforms, but got {got[0]} in "
            f"train_transforms, and {got[1]} in eval_transforms. Use the same in both."
        )


def normalizers(transforms: Sequence[Any]) -> list[Normalization]:
    """Return mean and standard deviation of each Normalize that has an effect."""
    pairs: list[Normalization] = []
    for transform in transforms:
        if isinstance(transform, v1.Normalize | v2.Normalize):
            mean, std = (np.resize(values, 3) for values in (transform.mean, transform.std))
            white = 255 if std.max() > 2 else 1  # no standard deviation of images of 0 to 1 exceeds 0.5
            pair = (mean / white).round(6).tolist(), (std / white).round(6).tolist()
            pairs += [pair] if pair != NOT_NORMALIZED else []
        pairs += normalizers(inner_transforms(transform))
    return pairs


def transformed_white(transforms: Sequence[ImageTransform], size: int, normalize: bool) -> Tensor:
    """Return a white image of ``size`` pixels after per-image transforms, or a stack of views of it.

    Raises:
        DataError: It is not square, or to be normalised although its values are floats of 0 to 255.
    """
    with seeded(0):
        white = compose(transforms)(torch.full((3, size, size), 255, dtype=torch.uint8))
    if white.shape[-1] != white.shape[-2]:
        raise DataError(f"Expected per-image transforms that return square images, but got {tuple(white.shape)}.")
    if normalize and white.is_floating_point() and white.max() > BYTES:
        raise DataError(
            f"Expected floats of 0 to 1 from per-image transforms, but white becomes {white.max():.3g}. Set `scale: "
            "true` of ToDtype, or use --data.normalize false."
        )
    return white
