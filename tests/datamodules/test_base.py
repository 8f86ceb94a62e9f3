from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules import CutMix, DataError, MixUp, RandomCrop, SampleDataModule
from datamodules.preparation.index import read_index
from datamodules.reading.decode import read_rgb

TO_FLOAT = v2.ToDtype(torch.float32, scale=True)
NORMALIZE = [TO_FLOAT, v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])]


class Darken(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.uint8
        return image // 2


def sample(root: Path, stage: str = "fit", **options: object) -> SampleDataModule:
    data = SampleDataModule(**({"root": str(root), "num_workers": 0} | options))
    data.prepare_data()
    data.setup(stage)
    return data


@pytest.mark.parametrize("transforms", [[], [TO_FLOAT]])
def test_batches_are_normalised_float_images(sample_root: Path, transforms: list) -> None:
    data = sample(sample_root, "test", batch_size=64, eval_transforms=transforms)
    images, targets = next(iter(data.test_dataloader()))
    assert images.dtype == torch.float32
    assert images.shape[1:] == (3, 32, 32)
    assert (targets.shape, targets.dtype) == ((len(images),), torch.int64)
    path, label = read_index(sample_root / "test.txt")[5]
    pixels = torch.from_numpy(read_rgb(sample_root / path)).permute(2, 0, 1).double() / 255
    mean, std = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    torch.testing.assert_close(images[5].double(), (pixels - mean) / std, atol=1e-5, rtol=0, check_dtype=False)
    assert targets[5] == label


def test_without_normalisation_images_are_from_0_to_1(sample_root: Path) -> None:
    data = sample(sample_root, normalize=False, sampler="balanced")
    assert data.train_dataloader().balanced
    images, _ = next(iter(data.val_dataloader()))
    assert (images.min(), images.max()) == (0, 1)
    assert (data.mean, data.std) == ([0.0] * 3, [1.0] * 3)


def test_only_training_images_are_augmented(sample_root: Path) -> None:
    data = sample(sample_root, train_transforms=[Darken(), Darken()], eval_transforms=[Darken()], normalize=False)
    for stage, factor in (("train", 4), ("val", 2)):
        dataset = data.datasets[stage]
        first = torch.tensor([0])
        assert torch.equal(dataset.__getitems__((0, first))[0], dataset.load(first)[0] // factor)
    plain, augmented = sample(sample_root), sample(sample_root, batch_transforms=[RandomCrop(4), CutMix()])
    images, targets = next(iter(augmented.train_dataloader()))
    assert not torch.equal(images, next(iter(plain.train_dataloader()))[0])
    torch.testing.assert_close(targets.sum(1), torch.ones(128))  # shares of classes
    assert torch.equal(*(next(iter(data.val_dataloader()))[0] for data in (plain, augmented)))


def test_views_are_a_batch_of_stacks_and_set_the_image_size(sample_root: Path) -> None:
    data = sample(sample_root, eval_transforms=[v2.FiveCrop(28)])
    images, targets = next(iter(data.val_dataloader()))
    assert images.shape == (len(targets), 5, 3, 28, 28)
    assert data.image_size == 28
    torch.testing.assert_close(
        images[:, 4, :, 1:-1, 1:-1], next(iter(sample(sample_root).val_dataloader()))[0][:, :, 3:29, 3:29]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_transforms": [v2.FiveCrop(28)]}, r"one view per image, but got \(5, 3, 28, 28\).*--data\.eval_trans"),
        ({"train_transforms": NORMALIZE}, "normalised twice: --data.train_transforms contain a Normalize"),
        ({"eval_transforms": [v2.Compose(NORMALIZE)]}, "normalised twice: --data.eval_transforms contain a Normalize"),
        ({"train_transforms": [v2.ToDtype(torch.float32)]}, "floats of 0 to 1 .* but white becomes 255"),
        ({"train_transforms": NORMALIZE, "normalize": False}, r"the same Normalize in .* got mean and std of \(\[0\.5"),
        ({"folds": 1}, r"--data\.folds"),
        ({"folds": 5, "fold": 5}, r"--data\.folds"),
    ],
)
def test_options_that_contradict_each_other_are_refused(sample_root: Path, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample(sample_root, **options)


def test_transforms_that_keep_the_scale_are_no_normalizing(sample_root: Path) -> None:
    noisy = [v2.RandomInvert(), v2.ColorJitter(0.9, 0.9, 0.9), TO_FLOAT, v2.GaussianNoise(sigma=0.2, clip=False)]
    before = torch.get_rng_state()
    for transforms in (noisy, [TO_FLOAT, v2.RandomErasing(1, value="random")], [v1.ToTensor()]):
        sample(sample_root, train_transforms=transforms, batch_transforms=[RandomCrop(4), MixUp()])
    assert torch.equal(torch.get_rng_state(), before)  # the global random state is unchanged


def test_mean_and_std_are_those_that_transforms_normalize_by(sample_root: Path) -> None:
    normalize = [v2.ToDtype(torch.float32), v2.Normalize([127.5, 51.0, 25.5], [51.0, 127.5, 25.5])]  # of 0 to 255
    nested = v2.Compose([v2.Compose(normalize), v2.FiveCrop(28)])
    data = sample(sample_root, train_transforms=normalize, eval_transforms=[nested], normalize=False)
    assert data.mean == pytest.approx([0.5, 0.2, 0.1])
    assert data.std == pytest.approx([0.2, 0.5, 0.1])


def test_training_and_evaluation_must_normalize_equally(sample_root: Path) -> None:
    jitter = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.5), TO_FLOAT]
    train = [*jitter, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    options = {"root": str(sample_root), "normalize": False, "train_transforms": train}
    for other in ([TO_FLOAT, v2.Normalize([0.5], [0.5])], [v1.ToTensor(), v1.Compose([v1.Normalize(0.5, 0.5)])]):
        with pytest.raises(DataError) as error:
            SampleDataModule(eval_transforms=other, **options)
        assert str(error.value) == (
            "Expected the same Normalize in --data.train_transforms and eval_transforms, but got mean and std of "
            "([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) and ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])."
        )
    rounded = nn.Sequential(TO_FLOAT, v2.Normalize([0.4854, 0.4564, 0.406], [0.229, 0.224, 0.225]))
    SampleDataModule(eval_transforms=[rounded], **options)


def test_a_checkpoint_fits_only_the_normalization_of_the_data(sample_root: Path) -> None:
    data = sample(sample_root, train_transforms=NORMALIZE, eval_transforms=NORMALIZE, normalize=False)
    data.match(None, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    with pytest.raises(DataError, match=r"Expected images with mean \[0.1.* normalise by \[0\.5, 0\.4, 0\.3\] and"):
        data.match(None, [0.1] * 3, [0.2] * 3)
    with pytest.raises(DataError, match=r"--data\.normalize false"):
        sample(sample_root, normalize=False).match(None, [0.1] * 3, [0.2] * 3)
    data = sample(sample_root)
    data.match(None, [0.0] * 3, [1.0] * 3)  # of training without normalisation
    images, _ = next(iter(data.val_dataloader()))
    assert (images.min(), images.max()) == (0, 1)


class Recorder(Callback):
    """Record every training batch."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: list, batch_idx: int) -> None:
        self.images.append(batch[0])


@pytest.mark.parametrize("option", ["limit_train_batches", "overfit_batches"])
def test_lightning_sets_the_epoch_and_overfits_the_same_images(
    option: str, sample_root: Path, make_classifier: Callable[..., LightningModule]
) -> None:
    recorder, quiet = Recorder(), ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {option: 1, "max_epochs": 2, "limit_val_batches": 0} | dict.fromkeys(quiet, False)
    trainer = Trainer(accelerator="cpu", callbacks=[recorder], **options)
    trainer.fit(make_classifier(), datamodule=SampleDataModule(str(sample_root), num_workers=0))
    assert torch.equal(*recorder.images) == (option == "overfit_batches")


def test_a_cache_may_be_deleted_at_any_time_or_not_be_written(tmp_path: Path) -> None:
    sample(tmp_path, cache="none")
    assert not (tmp_path / "cache").exists()
    data = sample(tmp_path)
    next((tmp_path / "cache").iterdir()).unlink()
    assert len(next(iter(data.train_dataloader()))[0]) == 128
    data.setup("test")
    assert sum(len(images) for images, _ in data.test_dataloader()) == len(read_index(tmp_path / "test.txt"))


def test_images_can_be_brought_to_another_size(tmp_path: Path) -> None:
    data = sample(tmp_path, image_size=16, resize="squash")
    assert data.image_size == 16
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (3, 16, 16)
    again = sample(tmp_path)
    assert again.image_size == 32
    assert data.mean == SampleDataModule(root=str(tmp_path), image_size=16, resize="squash").mean != again.mean


def test_a_write_error_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"data.*: (Not a directory|File exists)\. .*change --data\.root") as error:
        SampleDataModule(root=str(tmp_path / "data")).prepare_data()
    assert "\n" not in str(error.value)
