"""Train a network to put images of one class near one another."""

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_modules.base import ImageModule
from lightning_modules.extras.miners import all_pairs, batch_hard, semi_hard
from lightning_modules.extras.nearest_neighbor_accuracy import NearestNeighborAccuracy
from lightning_modules.losses import check_reduction

PAIR_LOSSES = (nn.HingeEmbeddingLoss, nn.CosineEmbeddingLoss)
TRIPLET_LOSSES = (nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss, nn.MarginRankingLoss)


class MetricLearner(ImageModule):
    """A network that makes embeddings, trained on pairs or triplets of a batch, judged by nearest neighbours.

    Batches are ``images``, float32 ``(N, 3, H, W)``, normalised, and ``targets``, int64 ``(N,)``; in validation and
    test also ``(N, V, 3, H, W)``, views of one image each, whose embeddings are averaged. Logs ``train/loss`` and
    ``train/loss_step`` (per pair or triplet), and ``val/acc`` and ``test/acc``: the share of images whose nearest
    neighbour among the others is of their class. There is no ``val/loss``: it would tell how images happen to be
    ordered, since a batch of one class has no triplet.

    Args:
        embedding_size: First argument of the network, and width of its output.
        loss: ``TripletMarginLoss`` (the default), ``MarginRankingLoss`` (a triplet's distance to the negative is to
            rank above that to the positive; give a margin, for its default is 0), ``HingeEmbeddingLoss`` (of a pair's
            distance) or ``CosineEmbeddingLoss``.
        miner: "all_pairs" for a loss of pairs. For a loss of triplets, "batch_hard": each image with the furthest of
            its class and the nearest of the others in the batch (Hermans et al., 2017, "In defense of the triplet
            loss"), for weights that are good already, since from random ones all embeddings may fall into one; or
            "semi_hard": each image with a random one of its class and the nearest of the others that is further away
            (Schroff et al., 2015, "FaceNet"). By default "all_pairs" or "semi_hard", whichever fits.
        distance: "cosine" scales embeddings to length 1, so that distances and neighbours tell their angles;
            "euclidean" leaves them as they are.
        **kwargs: See ``ImageModule``.

    Raises:
        MisconfigurationException: The output has not the width of an embedding, or loss and miner do not fit.
    """

    def __init__(
        self,
        embedding_size: PositiveInt = 64,
        loss: nn.Module | None = None,
        miner: Literal["all_pairs", "batch_hard", "semi_hard"] | None = None,
        distance: Literal["cosine", "euclidean"] = "cosine",
        **kwargs: Any,
    ) -> None:
        super().__init__(width=embedding_size, **kwargs)
        if self.output_shape != (1, embedding_size):
            raise MisconfigurationException(
                f"Expected a network that makes an embedding (1, {embedding_size}) of an image, but "
                f"{type(self.network).__name__} makes {self.output_shape}. Its first argument must set the width of "
                "its output."
            )
        self.loss = loss or nn.TripletMarginLoss()
        self.miner: str = miner or ("all_pairs" if isinstance(self.loss, PAIR_LOSSES) else "semi_hard")
        self._check_loss()
        each: Any = copy.copy(self.loss)
        each.reduction = "none"  # triplets that are none must not count
        self._each_loss: list[nn.Module] = [each]  # in a list, so that it is no part of the module
        self.distance = distance
        self.val_acc, self.test_acc = NearestNeighborAccuracy(), NearestNeighborAccuracy()

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``(N, embedding_size)`` of normalised images ``(N, 3, H, W)``."""
        return self._scale(super().forward(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the pairs or triplets of a batch."""
        images, targets = batch
        if targets.is_floating_point():
            raise MisconfigurationException(
                "Expected targets of one class for MetricLearner, but got mixed ones. Take mixup and cutmix out of "
                "--data.batch_transforms."
            )
        total, count = self.mined_loss(self(images).float(), targets)
        mean = total / count.clamp(min=1)  # a batch may hold no triplet; to ask would be to wait for the device
        self.log_training(count, loss=mean.detach())
        return total if self.loss.reduction == "sum" else mean

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep the embeddings of a batch of validation images."""
        self._evaluate("val", batch, self.val_acc, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep the embeddings of a batch of test images."""
        self._evaluate("test", batch, self.test_acc)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the embeddings of a batch of images."""
        return self._embed(batch[0])

    # Beyond Lightning's hooks

    def mined_loss(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the mined pairs or triplets of a batch, and their number, as scalars.

        Args:
            embeddings: Float ``(N, embedding_size)``.
            targets: Class of each, int64 ``(N,)``.
        """
        loss = self._each_loss[0]
        if isinstance(loss, PAIR_LOSSES):
            first, second, signs = all_pairs(targets)
            pair = embeddings[first], embeddings[second]
            if isinstance(loss, nn.CosineEmbeddingLoss):
                losses = loss(*pair, signs)
            else:
                losses = loss(F.pairwise_distance(*pair), signs)
            return losses.sum(), torch.full((), len(losses), device=losses.device)  # a copy would be waited for

        mine = batch_hard if self.miner == "batch_hard" else semi_hard
        distances = torch.cdist(embeddings.detach(), embeddings.detach())
        *triplets, valid = mine(distances, targets)
        anchors, positives, negatives = (embeddings[indices] for indices in triplets)
        if isinstance(loss, nn.MarginRankingLoss):
            near, far = F.pairwise_distance(anchors, positives), F.pairwise_distance(anchors, negatives)
            losses = loss(far, near, torch.ones_like(far))
        else:
            losses = loss(anchors, positives, negatives)
        return (losses * valid).sum(), valid.sum()

    # Helpers

    def _evaluate(self, stage: str, batch: tuple[Tensor, Tensor], accuracy: Metric, prog_bar: bool = False) -> None:
        accuracy.update(self._embed(batch[0]), batch[1])
        self.log(f"{stage}/acc", accuracy, prog_bar=prog_bar)

    def _embed(self, images: Tensor) -> Tensor:
        """Return the embeddings of images, or of the views of each image, averaged."""
        if images.ndim == 5:
            return self._scale(self(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1))
        return self(images)

    def _scale(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings) if self.distance == "cosine" else embeddings

    def _check_loss(self) -> None:
        name = type(self.loss).__name__
        if not isinstance(self.loss, PAIR_LOSSES + TRIPLET_LOSSES):
            known = ", ".join(cls.__name__ for cls in PAIR_LOSSES + TRIPLET_LOSSES)
            raise MisconfigurationException(
                f"Expected a loss of embeddings ({known}) at --model.loss of MetricLearner, but got {name}. Losses of "
                "classes belong to lightning_modules.ImageClassifier."
            )
        check_reduction(self.loss)
        fitting = ("all_pairs",) if isinstance(self.loss, PAIR_LOSSES) else ("semi_hard", "batch_hard")
        if self.miner not in fitting:
            raise MisconfigurationException(
                f"Expected --model.miner {' or '.join(fitting)} for {name}, but got {self.miner}."
            )
