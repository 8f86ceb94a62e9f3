from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules import DataError, SampleDataModule
from datamodules.dataset import read_rgb


class Darken(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.uint8
        return image // 2


def test_batches_are_normalised_float_images(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), batch_size=64, num_workers=0)
    data.prepare_data()
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch[0].dtype == torch.uint8
    images, targets = data.on_after_batch_transfer(batch, 0)
    assert (images.shape, images.dtype) == ((64, 3, 32, 32), torch.float32)
    assert (targets.shape, targets.dtype) == ((64,), torch.int64)
    path, label = data.datasets["test"].entries[5]
    pixels = torch.from_numpy(read_rgb(sample_root / path)).permute(2, 0, 1).double() / 255
    mean, std = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    torch.testing.assert_close(images[5].double(), (pixels - mean) / std, atol=1e-5, rtol=0, check_dtype=False)
    assert targets[5] == label


def test_training_set_as_a_whole_is_normalised(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    assert loader.drop_last
    images = torch.stack([data.datasets["train"].load(i) for i in range(len(data.datasets["train"]))])
    normalised, _ = data.on_after_batch_transfer((images, torch.zeros(len(images))), 0)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_training_images_alone_are_augmented(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), num_workers=0, train_transforms=[Darken(), Darken()])
    data.prepare_data()
    data.setup("fit")
    train, val = data.datasets["train"], data.datasets["val"]
    assert torch.equal(train[0][0], train.load(0) // 2 // 2)
    assert torch.equal(val[0][0], val.load(0))


def test_a_dataset_smaller_than_a_batch_is_trained_on(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), batch_size=100_000, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_dataloader()) == 1


def test_an_empty_stage_is_named(tmp_path: Path) -> None:
    data = SampleDataModule(root=str(tmp_path), num_workers=0)
    data.prepare_data()
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(DataError, match=r"val\.txt lists no image"):
        SampleDataModule(root=str(tmp_path), num_workers=0).prepare_data()
