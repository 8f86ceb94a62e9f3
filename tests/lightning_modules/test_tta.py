from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.tools.layers import predicted_classes as as_callbacks
from lightning_modules import ImageClassifier
from lightning_modules.tta import mean_over_views, predicted_classes, probabilities

Make = Callable[..., ImageClassifier]


class Linear(nn.Module):
    """A linear network: the mean of the logits of views equals the logits of the mean of the views."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, num_classes)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.fc(images.flatten(1))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_flip_and_translate_are_weighted_means_of_views(images: Tensor) -> None:
    network = Linear()
    torch.testing.assert_close(mean_over_views(network, images, []), network(images))
    mirrored = (network(images) + network(images[:, :, :, torch.arange(7, -1, -1)])) / 2
    torch.testing.assert_close(mean_over_views(network, images, ["flip"]), mirrored)
    rows = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 6], [1, 0, 1, 2, 3, 4, 5, 6]])  # reflected at the border
    moved = [images[:, :, row][:, :, :, row] for row in rows]
    expected = network(images) / 2 + network(moved[0]) / 4 + network(moved[1]) / 4
    torch.testing.assert_close(mean_over_views(network, images, ["translate"]), expected)


def test_crops_of_a_constant_image_are_that_image_and_of_others_are_not(images: Tensor) -> None:
    network = Linear()
    constant = torch.full((1, 3, 8, 8), 0.7)
    torch.testing.assert_close(mean_over_views(network, constant, ["crops"]), network(constant))
    network.seen.clear()
    mean_over_views(network, images, ["crops"])
    for view, (y, x) in zip(network.seen[1:], ((0, 0), (0, -1), (-1, 0), (-1, -1)), strict=True):
        torch.testing.assert_close(view[:, :, y, x], images[:, :, y, x])


def test_kinds_are_combined_with_one_another_and_with_views_of_the_data(images: Tensor) -> None:
    network = Linear()
    combined = mean_over_views(network, images, ["flip", "translate"])
    assert len(network.seen) == 6
    one_by_one = mean_over_views(lambda x: mean_over_views(network, x, ["translate"]), images, ["flip"])
    torch.testing.assert_close(combined, one_by_one)
    views = mean_over_views(network, torch.stack([images, 2 * images], dim=1), ["flip"])
    torch.testing.assert_close(views, mean_over_views(network, 1.5 * images, ["flip"]))


def test_test_predict_and_classify_use_views_and_validation_does_not(make_classifier: Make, images: Tensor) -> None:
    module = make_classifier(network=Linear, image_size=8, tta=["flip"])
    loader = DataLoader(TensorDataset(images, torch.arange(4)), 4)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module.network.seen.clear()
    trainer.validate(module, loader, verbose=False)
    assert len(module.network.seen) == 1
    expected = mean_over_views(module.network, images, ["flip"])
    loss = trainer.test(module, loader, verbose=False)[0]["test/loss"]
    assert loss == pytest.approx(nn.functional.cross_entropy(expected, torch.arange(4)).item(), abs=1e-6)
    (probabilities,) = trainer.predict(module, loader)
    torch.testing.assert_close(probabilities, expected.softmax(1))
    raw = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = mean_over_views(module, module.normalize(raw), ["flip"]).softmax(1)
    torch.testing.assert_close(module.eval().classify(raw), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("predict", [predicted_classes, as_callbacks])
def test_of_equally_probable_classes_the_first_is_predicted(
    predict: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    for classes in (2, 17, 1000):
        logits = torch.randn(64, classes, generator=torch.Generator().manual_seed(classes)).round().to(dtype)
        first = [row.index(max(row)) for row in probabilities(logits).tolist()]
        assert predict(logits).tolist() == first
        assert predict(logits).tolist() == [row.index(max(row)) for row in logits.tolist()]
    unlike = torch.tensor([[0.0, 1e-9, 2e-9]], dtype=dtype)  # different logits of equal probability
    assert predict(unlike).tolist() == [0]


def test_means_over_views_are_no_coarser_than_float32(images: Tensor) -> None:
    network = Linear().to(torch.bfloat16)
    seen = [network(view.bfloat16()) for view in (images, images.flip(-1))]
    mean = mean_over_views(network, images.bfloat16(), ["flip"])
    assert torch.equal(mean, 0.5 * seen[0].float() + 0.5 * seen[1].float())
    assert mean_over_views(Linear().double(), images.double(), []).dtype == torch.float64
