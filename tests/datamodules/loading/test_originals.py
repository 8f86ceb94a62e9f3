import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from datamodules import DataError, FolderDataModule, RandomHorizontalFlip
from datamodules.loading.originals import check_size
from datamodules.reading.decode import read_rgb

SIZE = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 40 photos of several shapes and formats in two classes. Tests must not change it."""
    root = tmp_path_factory.mktemp("originals") / "photos"
    numbers = np.random.default_rng(0)
    for i in range(40):
        width, height = (60 + i, 48) if i % 3 else (40, 70 + i)
        coarse = Image.fromarray(numbers.integers(0, 256, (6, 8, 3), np.uint8))
        path = root / ("cats", "dogs")[i % 2] / f"{i}.{'png' if i % 5 == 0 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return root


def data(photos: Path, root: Path, **options: object) -> FolderDataModule:
    """Return a DataModule that reads training images from their originals, set up."""
    defaults = {"train_transforms": [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()], "originals": True}
    defaults |= {"batch_size": 8, "image_size": SIZE, "num_workers": 0}
    module = FolderDataModule(root=str(root), images=str(photos), **(defaults | options))
    module.prepare_data()
    module.setup("fit")
    return module


def digests(module: FolderDataModule, epoch: int) -> list[str]:
    """Return a digest of each training batch of an epoch."""
    loader = module.train_dataloader()
    loader.set_epoch(epoch)
    return [
        hashlib.sha256(images.numpy().tobytes() + targets.numpy().tobytes()).hexdigest() for images, targets in loader
    ]


def test_transforms_receive_the_original_pixels_of_each_image(photos: Path, tmp_path: Path) -> None:
    module = data(photos, tmp_path, train_transforms=[v2.CenterCrop(SIZE)], normalize=False, sampler="balanced")
    dataset = module.datasets["train"]
    for position, file in enumerate(dataset.files):
        pixels = torch.from_numpy(read_rgb(photos / file)).permute(2, 0, 1)
        image, target = dataset[position]
        assert torch.equal(image, v2.functional.center_crop(pixels, [SIZE, SIZE]))
        assert module.class_names[target] == file.split("/")[0]
        images, targets = dataset.__getitems__((0, torch.tensor([position])))
        assert torch.equal(images[0], image)
        assert targets.tolist() == [target]
    assert next(iter(module.train_dataloader()))[0].shape == (8, 3, SIZE, SIZE)


def test_batches_are_a_function_of_seed_and_epoch_for_any_number_of_workers_and_cache(
    photos: Path, tmp_path: Path
) -> None:
    transforms = [v2.RandomResizedCrop(SIZE), v2.ColorJitter(0.4), v2.RandomHorizontalFlip()]
    results = []
    for workers, cache in ((0, "disk"), (1, "none"), (2, "disk"), (0, "device")):
        options = {"num_workers": workers, "cache": cache, "train_transforms": transforms}
        module = data(photos, tmp_path, batch_transforms=[RandomHorizontalFlip()], **options)
        results.append([digests(module, epoch) for epoch in (0, 1)])
    assert all(result == results[0] for result in results)
    assert results[0][0] != results[0][1]
    assert results[0] != [digests(data(photos, tmp_path, seed=1), epoch) for epoch in (0, 1)]


@pytest.mark.parametrize("folds", [{}, {"folds": 3, "fold": 1}])
def test_only_val_and_test_are_cached_and_evaluation_and_statistics_are_unchanged(
    photos: Path, tmp_path: Path, folds: dict[str, int]
) -> None:
    squared, originals = (data(photos, tmp_path, originals=flag, **folds) for flag in (False, True))
    whole, part = squared.prepared.cache, originals.prepared.cache
    assert whole.exists(), "each keeps the cache of the other"
    entries = originals.prepared.entries
    assert len(np.load(part)) == len(entries["val"] + entries["test"]) < len(np.load(whole))
    assert (originals.mean, originals.std, originals.digest) == (squared.mean, squared.std, squared.digest)
    for module in (squared, originals):
        module.setup("test")
    for loader in ("val_dataloader", "test_dataloader"):
        for module in (squared, originals):
            module.setup("fit" if loader == "val_dataloader" else "test")
        for one, other in zip(getattr(squared, loader)(), getattr(originals, loader)(), strict=True):
            assert torch.equal(one[0], other[0])


def test_unreadable_images_are_excluded_and_a_missing_one_is_named(photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "photos"
    for path in photos.rglob("*.*g"):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no image" if path.stem in ("2", "3", "7", "8") else path.read_bytes())
    module = data(copy, tmp_path / "data", on_bad_image="skip", drop_last=False)
    excluded = json.loads((tmp_path / "data" / "dataset.json").read_text())["pixels"][f"{SIZE} crop"]["unreadable"]
    assert len(excluded) == 4
    assert not {*module.datasets["train"].files} & {*excluded}
    assert sum(len(images) for images, _ in module.train_dataloader()) == len(module.datasets["train"])
    (copy / module.datasets["train"].files[0]).unlink()
    with pytest.raises(DataError, match=r"g is missing\. Restore it"):
        digests(module, 0)


def test_transforms_must_give_one_size_before_training(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        data(photos, tmp_path, train_transforms=[v2.Resize(SIZE)])
    assert str(error.value) == (
        "Expected --data.train_transforms that make every image 24x24, the size of validation images, because of "
        "--data.originals true, but 72x48 becomes 36x24. Put torchvision.transforms.v2.RandomResizedCrop with size 24 "
        "first, or change --data.image_size."
    )
    for transform in (None, v2.RandomResizedCrop(2 * SIZE), v2.RandomResizedCrop((SIZE, SIZE + 1))):
        with pytest.raises(DataError, match="every image 24x24"):
            check_size(transform, SIZE)
    check_size(v1.RandomResizedCrop(SIZE), SIZE)
    data(photos, tmp_path, image_size=32, eval_transforms=[v2.CenterCrop(SIZE)])  # as the network receives them


def crop_wide_images(image: torch.Tensor) -> torch.Tensor:
    return image[:, :SIZE, :SIZE] if image.shape[2] > 45 else image[:, :SIZE, : SIZE - 1]


def test_an_image_of_another_size_than_the_others_is_named(photos: Path, tmp_path: Path) -> None:
    module = data(photos, tmp_path, train_transforms=[crop_wide_images], batch_size=32)
    with pytest.raises(DataError, match=r"photos.*g: Expected 2[34]x24 pixels from .* but got 2[34]x24\. Make every"):
        digests(module, 0)


def test_a_device_cache_holds_only_images_of_val(photos: Path, tmp_path: Path) -> None:
    module = data(photos, tmp_path, cache="device")
    module.train_dataloader(), module.val_dataloader()
    assert module.datasets["train"].pixels is None
    assert module.datasets["val"].cache is None, "copied"
