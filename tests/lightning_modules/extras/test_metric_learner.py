from collections.abc import Callable
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from training import measured

from lightning_modules.extras.metric_learner import MetricLearner
from lightning_modules.extras.miners import batch_hard, semi_hard
from lightning_modules.extras.nearest_neighbor_accuracy import NearestNeighborAccuracy
from lightning_modules.networks import LeNet
from project.__main__ import main

Make = Callable[..., MetricLearner]

# Points on a line, of classes 0 0 1 1. Distances: 0-1 1, 0-2 3, 0-3 7, 1-2 2, 1-3 6, 2-3 4.
LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
# Directions of classes 0 0 1: cosines 0-1 0.6, 0-2 0, 1-2 0.8.
DIRECTIONS = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 3.0]])


@pytest.fixture
def make() -> Make:
    def make(**changes: Any) -> MetricLearner:
        arguments: dict[str, Any] = {
            "network": LeNet,
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "embedding_size": 2,
            "class_names": ["cat", "dog"],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "image_size": 32,
            "distance": "euclidean",
        }
        return MetricLearner(**(arguments | changes))

    return make


@pytest.mark.parametrize(
    ("loss", "points", "labels", "by_hand"),
    [
        # furthest of the class, nearest of the others: 0-1 and 0-2; 1-0 and 1-2; 2-3 and 2-1; 3-2 and 3-1
        (nn.TripletMarginLoss(), LINE, [0, 0, 1, 1], (0 + (1 - 2 + 1) + (4 - 2 + 1) + 0) / 4),
        (nn.TripletMarginLoss(margin=2.5), LINE, [0, 0, 1, 2], (0.5 + 1.5) / 2),  # the others have no triplet
        (nn.MarginRankingLoss(margin=2.5), LINE, [0, 0, 1, 1], (0.5 + 1.5 + 4.5 + 0.5) / 4),
        # distances within a class 1 and 4; between classes 3 7 2 6, which must be at least the margin
        (nn.HingeEmbeddingLoss(margin=3.5), LINE, [0, 0, 1, 1], (1 + 4 + (3.5 - 3) + 0 + (3.5 - 2) + 0) / 6),
        (nn.HingeEmbeddingLoss(reduction="sum"), LINE, [0, 0, 1, 1], (1 + 4) / 6),  # whatever the reduction
        (nn.CosineEmbeddingLoss(margin=0.5), DIRECTIONS, [0, 0, 1], ((1 - 0.6) + 0 + (0.8 - 0.5)) / 3),
    ],
)
def test_loss_equals_the_value_computed_by_hand(
    make: Make, loss: nn.Module, points: Tensor, labels: list[int], by_hand: float
) -> None:
    losses, valid = make(loss=loss, miner="batch_hard").mined_losses(points, torch.tensor(labels))
    assert losses[valid].mean().item() == pytest.approx(by_hand, abs=1e-4)


def test_semi_hard_takes_the_nearest_negative_that_is_further_away_or_the_furthest() -> None:
    # from the right: 7 has its positive at a distance of 4 and negatives at 6 and 7; 3 has it at 4, and both nearer
    points, labels = LINE.flip(0), torch.tensor([1, 1, 0, 0])
    positives, negatives, valid = semi_hard(torch.cdist(points, points), labels)
    assert positives.tolist() == [1, 0, 3, 2]
    assert negatives.tolist() == [2, 3, 1, 1]
    assert valid.all()


def test_semi_hard_takes_any_positive() -> None:
    distances, labels = torch.cdist(LINE, LINE), torch.tensor([0, 0, 0, 1])
    torch.manual_seed(0)
    taken = torch.stack([semi_hard(distances, labels)[0] for _ in range(30)])
    assert [set(column.tolist()) for column in taken.T[:3]] == [{1, 2}, {0, 2}, {0, 1}]


@pytest.mark.parametrize("mine", [batch_hard, semi_hard])
def test_image_without_a_positive_or_a_negative_makes_no_triplet(mine: Callable) -> None:
    distances = torch.cdist(LINE, LINE)
    assert mine(distances, torch.tensor([0, 0, 1, 2]))[2].tolist() == [True, True, False, False]
    assert not mine(distances, torch.tensor([5, 5, 5, 5]))[2].any()


def test_batch_of_one_class_has_a_loss_of_zero_and_no_gradient(make: Make) -> None:
    module = make()
    module.training_step((torch.randn(4, 3, 32, 32), torch.ones(4, dtype=torch.int64)), 0).backward()
    assert not any(parameter.grad.any() for parameter in module.network.parameters())
    with pytest.raises(MisconfigurationException, match="one class for MetricLearner"):
        module.training_step((torch.randn(4, 3, 32, 32), torch.full((4, 2), 0.5)), 0)


def test_accuracy_is_that_of_the_nearest_of_all_other_images() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, targets = torch.randn(2500, 3, generator=generator), torch.randint(4, (2500,), generator=generator)
    distances = (embeddings[:, None] - embeddings).square().sum(2)
    nearest = distances.argsort(1)[:, 1]  # the first is the image itself
    accuracy = NearestNeighborAccuracy()
    for part in (slice(900), slice(900, None)):
        accuracy.update(embeddings[part], targets[part])
    assert accuracy.compute().item() == pytest.approx((targets[nearest] == targets).float().mean().item())


def test_cosine_makes_embeddings_of_length_one_and_euclidean_leaves_them(make: Make) -> None:
    images = torch.randn(3, 3, 32, 32)
    module = make(distance="cosine").eval()
    torch.testing.assert_close(module(images).norm(dim=1), torch.ones(3))
    module.distance = "euclidean"
    torch.testing.assert_close(module(images), module.network(images))


def test_views_of_an_image_have_one_embedding_of_their_mean_direction(make: Make) -> None:
    module = make(distance="cosine", network=lambda width: nn.Sequential(nn.Flatten(), nn.Linear(3072, width)))
    with torch.no_grad(), patch.object(module, "forward", lambda images: images.flatten(1)[:, :2]):
        views = torch.zeros(1, 2, 3, 32, 32)
        views[0, 0, 0, 0, 0] = views[0, 1, 0, 0, 1] = 1  # embeddings (1, 0) and (0, 1)
        assert module.predict_step((views, torch.tensor([0])), 0).tolist() == [pytest.approx([sqrt(0.5), sqrt(0.5)])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": nn.MSELoss()}, "loss on embeddings.*TripletMarginLoss.*got MSELoss.*ImageClassifier"),
        ({"network": lambda width: LeNet(7)}, r"embedding \(1, 2\) for an image, but LeNet returns \(1, 7\)"),
    ],
)
def test_what_does_not_fit_is_refused(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        make(**changes)


def test_command_trains_tests_and_keeps_all_that_a_checkpoint_needs(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config=configs/metric.yaml", *fast[2:], "--callbacks=false", "--trainer.limit_train_batches=4"]
    options += ["--model.embedding_size=16", "--model.loss=torch.nn.HingeEmbeddingLoss", f"--runs_dir={tmp_path}"]
    cli = main(["fit", *options, "--test_after_fit=true"])
    assert set(measured(cli.run_dir)) == {"val/acc"}
    assert set(measured(next(cli.run_dir.glob("test/*")))) == {"test/acc"}
    best = cli.run_dir / "checkpoints" / "best.ckpt"
    module = MetricLearner.load_from_checkpoint(best, weights_only=True).eval()
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 16)
    assert isinstance(module.loss, nn.HingeEmbeddingLoss)
    assert (module.class_names[3], module.hparams["image_size"]) == ("3", 32)
    for command in (["predict", "a.png"], ["export", "--format=torch_export"]):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            main([*command, f"--run={cli.run_dir}"])
        assert capsys.readouterr().err == (
            f"error: Expected the checkpoint of an ImageClassifier, but {best} is of MetricLearner.\n"
        )
