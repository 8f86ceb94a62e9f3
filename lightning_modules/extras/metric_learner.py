"""Train embeddings by metric learning."""

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_modules.base import ImageModule
from lightning_modules.extras.miners import all_pairs, batch_hard, semi_hard
from lightning_modules.extras.nearest_neighbor_accuracy import NearestNeighborAccuracy

PAIR_LOSSES = (nn.HingeEmbeddingLoss, nn.CosineEmbeddingLoss)
TRIPLET_LOSSES = (nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss, nn.MarginRankingLoss)


class MetricLearner(ImageModule):
    """A network that returns embeddings, trained on pairs or triplets of a batch, evaluated by nearest neighbours.

    Batches are ``images``, float32 ``(N, C, H, W)``, normalised, and ``targets``, int64 ``(N,)``; in validation and
    test also ``(N, V, C, H, W)``, views of one image each, whose embeddings are averaged. Logs ``train/loss`` and
    ``train/loss_step`` (per pair or triplet), and ``val/acc`` and ``test/acc``: the fraction of images whose nearest
    neighbour has the same class. There is no ``val/loss``, because it would depend on the order of the images.

    Args:
        embedding_size: First argument of the network, and width of its output.
        loss: ``TripletMarginLoss`` (the default), ``MarginRankingLoss`` (ranks a triplet's distance to the negative
            above that to the positive; set a margin, because its default is 0), ``HingeEmbeddingLoss`` (on the distance
            of a pair) or ``CosineEmbeddingLoss``. Its mean is trained on, whatever its reduction.
        miner: Triplets for a loss on triplets, see ``miners``: "semi_hard", or "batch_hard" for pretrained weights,
            because embeddings of random weights may collapse. A loss on pairs takes all pairs.
        distance: "cosine" scales embeddings to length 1, so that distances and neighbours depend only on angles;
            "euclidean" does not change them.
        **kwargs: See ``ImageModule``.

    Raises:
        MisconfigurationException: The output is not an embedding of ``embedding_size``, or the loss is another one.
    """

    def __init__(
        self,
        embedding_size: PositiveInt = 64,
        loss: nn.Module | None = None,
        miner: Literal["batch_hard", "semi_hard"] = "semi_hard",
        distance: Literal["cosine", "euclidean"] = "cosine",
        **kwargs: Any,
    ) -> None:
        super().__init__(width=embedding_size, **kwargs)
        if self.output_shape != (1, embedding_size):
            raise MisconfigurationException(
                f"Expected a network that returns an embedding (1, {embedding_size}) for an image, but "
                f"{type(self.network).__name__} returns {self.output_shape}. Its first argument must set that width."
            )
        self.loss: Any = copy.copy(loss or nn.TripletMarginLoss())
        if not isinstance(self.loss, PAIR_LOSSES + TRIPLET_LOSSES):
            names = ", ".join(cls.__name__ for cls in PAIR_LOSSES + TRIPLET_LOSSES)
            raise MisconfigurationException(
                f"Expected a loss on embeddings ({names}) at --model.loss, but got {type(self.loss).__name__}. For "
                "losses on logits, use lightning_modules.ImageClassifier."
            )
        self.loss.reduction = "none"  # to mask images without a valid triplet
        self.mine_triplets = batch_hard if miner == "batch_hard" else semi_hard
        self.distance = distance
        self.val_acc, self.test_acc = NearestNeighborAccuracy(), NearestNeighborAccuracy()

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings ``(N, embedding_size)`` of normalised images ``(N, C, H, W)``."""
        return self._scale(super().forward(images))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        if targets.is_floating_point():
            raise MisconfigurationException(
                "Expected targets of one class for MetricLearner. Remove MixUp and CutMix from --data.batch_transforms."
            )
        losses, valid = self.mined_losses(self(images).float(), targets)
        count = valid.sum()
        mean = (losses * valid).sum() / count.clamp(min=1)  # a batch may have no triplet; a check would synchronise
        self.log_training(count, loss=mean.detach())
        return mean

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.val_acc.update(self._embed(batch[0]), batch[1])
        self.log("val/acc", self.val_acc, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.test_acc.update(self._embed(batch[0]), batch[1])
        self.log("test/acc", self.test_acc)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._embed(batch[0])

    def mined_losses(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses of the mined pairs or triplets of a batch, and which of them are valid, both ``(P,)``.

        ``embeddings`` are float ``(N, embedding_size)``, ``targets`` int64 ``(N,)``.
        """
        if isinstance(self.loss, PAIR_LOSSES):
            first, second, signs = all_pairs(targets)
            pair = embeddings[first], embeddings[second]
            is_cosine = isinstance(self.loss, nn.CosineEmbeddingLoss)
            losses = self.loss(*pair, signs) if is_cosine else self.loss(F.pairwise_distance(*pair), signs)
            return losses, torch.ones_like(losses, dtype=torch.bool)
        distances = torch.cdist(embeddings.detach(), embeddings.detach())
        *indices, valid = self.mine_triplets(distances, targets)
        positives, negatives = (embeddings[each] for each in indices)
        if isinstance(self.loss, nn.MarginRankingLoss):
            near, far = F.pairwise_distance(embeddings, positives), F.pairwise_distance(embeddings, negatives)
            return self.loss(far, near, torch.ones_like(far)), valid
        return self.loss(embeddings, positives, negatives), valid

    def _embed(self, images: Tensor) -> Tensor:
        """Return the embeddings of images, averaged over views if there are several."""
        if images.ndim == 5:
            return self._scale(self(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(1))
        return self(images)

    def _scale(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings) if self.distance == "cosine" else embeddings
