from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import ActivationHistograms, FeatureMaps, GradCAM
from callbacks.base.images import ImageCallback, spread


def test_positions_take_turns_among_the_classes() -> None:
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
    assert spread(targets, 8, 3).tolist() == [0, 4, 6]
    assert spread(targets, 8, 6).tolist() == [0, 4, 6, 1, 5, 2]
    assert spread(targets, 8, 2).tolist() == [0, 6]
    assert sorted(spread(targets, 8, 100).tolist()) == list(range(8))


def test_classes_without_images_are_skipped() -> None:
    assert spread(torch.tensor([5, 5, 9]), 3, 2).tolist() == [0, 2]


def test_positions_are_spread_evenly_where_classes_are_unknown() -> None:
    assert spread(None, 9, 3).tolist() == [0, 4, 8]
    assert spread(torch.zeros(9, 2), 9, 2).tolist() == [0, 8]


@pytest.mark.parametrize("callback", [FeatureMaps(["conv9"]), GradCAM("conv9"), ActivationHistograms(["conv9"])])
def test_layer_that_does_not_exist_is_named_in_setup(callback: ImageCallback, make_classifier: Callable) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[callback])
    with pytest.raises(MisconfigurationException, match=r"'conv9' to match a layer .*conv2"):
        callback.setup(trainer, make_classifier(), "fit")
