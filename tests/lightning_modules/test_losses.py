"""Each loss on two images of three classes, the first of class 0, the second of class 1, computed by hand."""

from functools import partial
from math import log

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from training import module_of, trace

from lightning_modules import ImageClassifier
from lightning_modules.losses import TORCH_LOSSES, losses_of_images, per_image
from lightning_modules.losses import for_classes as for_some_classes

# e to the logits is 2 1 1 and 1 3 4: softmax 1/2 1/4 1/4 and 1/8 3/8 1/2, sigmoid 2/3 1/2 1/2 and 1/2 3/4 4/5
LOGITS = torch.tensor([[2.0, 1.0, 1.0], [1.0, 3.0, 4.0]]).log()
SCORES = torch.tensor([[2.0, 1.5, 0.0], [0.5, 1.0, 3.0]])
TARGETS = torch.tensor([0, 1])
WEIGHTED = (
    "CrossEntropyLoss",
    "NLLLoss",
    "MultiMarginLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "MultiLabelSoftMarginLoss",
)
for_classes = partial(for_some_classes, num_classes=3)

CROSS_ENTROPY = (-log(1 / 2) - log(3 / 8)) / 2
SIX_QUESTIONS = -(log(2 / 3) + log(1 / 2) + log(1 / 2) + log(1 / 2) + log(3 / 4) + log(1 / 5)) / 6

BY_HAND: list[tuple[nn.Module, float]] = [
    (nn.NLLLoss(), CROSS_ENTROPY),
    (nn.KLDivLoss(reduction="batchmean"), CROSS_ENTROPY),
    (nn.L1Loss(), (1 / 2 + 1 / 4 + 1 / 4 + 1 / 8 + 5 / 8 + 1 / 2) / 6),
    (nn.MSELoss(), (1 / 4 + 1 / 16 + 1 / 16 + 1 / 64 + 25 / 64 + 1 / 4) / 6),
    (nn.SmoothL1Loss(), (1 / 4 + 1 / 16 + 1 / 16 + 1 / 64 + 25 / 64 + 1 / 4) / 2 / 6),
    (nn.HuberLoss(delta=0.5), (1 / 4 + 1 / 16 + 1 / 16 + 1 / 64 + (5 / 8 - 1 / 4) + 1 / 4) / 2 / 6),
    (nn.PoissonNLLLoss(), (2 + 1 + 1 - log(2) + 1 + 3 + 4 - log(3)) / 6),
    (nn.BCELoss(), SIX_QUESTIONS),
    (nn.BCEWithLogitsLoss(), SIX_QUESTIONS),
    (nn.MultiLabelSoftMarginLoss(), SIX_QUESTIONS),
    # ln(1 + e^-x) for the class and ln(1 + e^x) for the others
    (nn.SoftMarginLoss(), (log(1 + 1 / 2) + log(1 + 1) + log(1 + 1) + log(1 + 1) + log(1 + 1 / 3) + log(1 + 4)) / 6),
]
BY_HAND_OF_SCORES: list[tuple[nn.Module, float]] = [
    # 2 leads 1.5 by 0.5 of the 1 asked for, and 0 by enough; 1 leads 0.5 by 0.5, and lags 3 by 2
    (nn.MultiMarginLoss(), ((0.5 + 0) / 3 + (0.5 + 3) / 3) / 2),
    (nn.MultiLabelMarginLoss(), ((0.5 + 0) / 3 + (0.5 + 3) / 3) / 2),
]


def test_losses_equal_the_values_computed_by_hand() -> None:
    assert {type(loss) for loss, _ in BY_HAND + BY_HAND_OF_SCORES} == TORCH_LOSSES.keys()
    for loss, by_hand in BY_HAND:
        assert for_classes(loss)(LOGITS, TARGETS).item() == pytest.approx(by_hand, rel=1e-5), loss
    for loss, by_hand in BY_HAND_OF_SCORES:
        assert for_classes(loss)(SCORES, TARGETS).item() == pytest.approx(by_hand, rel=1e-5), loss


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        (nn.L1Loss(), (1 / 4 + 0 + 1 / 4) / 3),
        (nn.KLDivLoss(reduction="batchmean"), 0.75 * log(0.75 / (1 / 2)) + 0.25 * log(0.25 / (1 / 4))),
        (nn.BCELoss(), -(0.75 * log(2 / 3) + 0.25 * log(1 / 3) + log(1 / 2) + log(1 / 2)) / 3),
    ],
)
def test_shares_of_mixed_images_are_the_targets(loss: nn.Module, by_hand: float) -> None:
    mixed = torch.tensor([[0.75, 0.25, 0.0]])
    assert for_classes(loss)(LOGITS[:1], mixed).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("cls", [nn.NLLLoss, nn.MultiMarginLoss, nn.SoftMarginLoss, nn.MultiLabelMarginLoss])
def test_loss_that_needs_one_class_refuses_mixed_images(cls: type[nn.Module]) -> None:
    with pytest.raises(MisconfigurationException, match=f"one class per image for {cls.__name__}.*MixUp"):
        for_classes(cls())(LOGITS, torch.full((2, 3), 1 / 3))


def test_losses_of_logits_in_half_precision_are_computed_in_float32() -> None:
    logits = LOGITS.bfloat16()  # like the output of a network under autocast
    for loss, _ in BY_HAND:
        with torch.autocast("cpu", torch.bfloat16):
            value = for_classes(loss)(logits, TARGETS)
        assert torch.equal(value, for_classes(loss)(logits.float(), TARGETS)), loss
        assert value.dtype == torch.float32


def test_sum_is_logged_as_a_mean_over_images() -> None:
    total, mean = for_classes(nn.CrossEntropyLoss(reduction="sum")), for_classes(nn.CrossEntropyLoss())
    assert per_image(total, total(LOGITS, TARGETS), 2).item() == pytest.approx(CROSS_ENTROPY)
    assert per_image(mean, mean(LOGITS, TARGETS), 2).item() == pytest.approx(CROSS_ENTROPY)


class Own(nn.Module):
    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(1) == targets).float().mean()


def test_loss_that_accepts_logits_and_classes_is_unchanged() -> None:
    for loss in (Own(), nn.CrossEntropyLoss()):
        assert for_classes(loss) is loss
    assert losses_of_images(Own(), LOGITS, TARGETS) is None


@pytest.mark.parametrize(
    "loss",
    [
        "{class_path: torch.nn.MultiMarginLoss, init_args: {p: 2, margin: 0.5}}",
        "{class_path: torch.nn.MSELoss, init_args: {reduction: sum}}",
    ],
)
def test_loss_trains_a_classifier_from_yaml(loss: str) -> None:
    losses = trace(module_of("ImageClassifier", f"loss: {loss}"))
    assert losses[-1] < losses[0] < 5  # a sum is logged per image


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_a_config_are_a_list_of_numbers_or_balanced(name: str) -> None:
    # 60 images, 3 classes: 60 / (3 * 10), 60 / (3 * 20), 60 / (3 * 30)
    weight = torch.tensor([2, 1, 2 / 3])
    expected = for_classes(getattr(nn, name)(weight=weight))(SCORES, TARGETS)
    for yaml in (
        f"loss: {{class_path: torch.nn.{name}, init_args: {{weight: [2, 1, {2 / 3}]}}}}",
        f"loss: torch.nn.{name}\nclass_weights: balanced\nclass_counts: [10, 20, 30]",
    ):
        module = module_of("ImageClassifier", yaml)
        assert isinstance(module, ImageClassifier)
        torch.testing.assert_close(module.loss(SCORES, TARGETS), expected)
        torch.testing.assert_close([*module.loss.buffers()], [weight])  # buffers move to the device


@pytest.mark.parametrize(
    ("name", "reduction"),
    [
        *((cls.__name__, way) for cls in (nn.CrossEntropyLoss, *TORCH_LOSSES) for way in ("mean", "sum")),
        ("KLDivLoss", "batchmean"),
    ],
)
def test_losses_of_images_add_up_to_the_loss_of_the_batch(name: str, reduction: str) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    loss = for_classes(getattr(nn, name)(reduction=reduction))
    each = losses_of_images(loss, logits, targets)
    assert each is not None
    assert each.shape == (6,)
    torch.testing.assert_close(each.sum() if reduction == "sum" else each.mean(), loss(logits, targets))
    torch.testing.assert_close(each[2:3], losses_of_images(loss, logits[2:3], targets[2:3]))


@pytest.mark.parametrize("option", ["weight", "pos_weight"])
def test_weights_of_another_number_of_classes_are_refused(option: str) -> None:
    with pytest.raises(MisconfigurationException, match=f"^Expected 3 weights, one .*--model.loss.{option}, but"):
        for_classes(nn.BCEWithLogitsLoss(**{option: torch.ones(2)}))
    for_classes(nn.BCEWithLogitsLoss(pos_weight=torch.ones(1)))  # one for all classes
