import hashlib
import multiprocessing
import re
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import WeightedRandomSampler
from torchvision.transforms import v2

from datamodules import DataError, MixUp, RandomCrop, RandomHorizontalFlip, SampleDataModule
from datamodules.loading.dataset import ImageDataset
from datamodules.loading.loader import EpochSampler, ImageLoader
from project.__main__ import main

COUNT = 103


def loader(count: int = COUNT, **options: object) -> ImageLoader:
    """Return a loader of images whose pixels all equal their position."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    dataset = ImageDataset(Path(), [(f"{i}.png", i % 10) for i in range(count)], 2, pixels=pixels)
    settings = {"batch_size": 10, "shuffle": True, "seed": 7, "transform": as_it_is, "device": torch.device("cpu")}
    return ImageLoader(dataset, **(settings | options))


def as_it_is(images: Tensor, targets: Tensor, draw: object) -> tuple[Tensor, Tensor]:
    return images, targets


def shown(batches: ImageLoader) -> list[list[int]]:
    """Return the positions in each batch of an epoch."""
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch]


def digests(batches: ImageLoader) -> list[str]:
    """Return a digest of each batch of an epoch."""
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in batches]


def sample(root: Path, **options: object) -> SampleDataModule:
    data = SampleDataModule(**({"root": str(root), "batch_size": 100, "num_workers": 0} | options))
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_paths_of_a_batch_are_those_of_its_images(world_size: int, shuffle: bool, drop_last: bool) -> None:
    for rank in range(world_size):
        batches = loader(shuffle=shuffle, drop_last=drop_last, rank=rank, world_size=world_size)
        batches.sampler.set_epoch(3)
        for number, positions in enumerate(shown(batches)):
            assert batches.paths(number) == [f"./{position}.png" for position in positions]


def test_plain_images_are_spread_over_the_dataset_and_not_augmented() -> None:
    batches = loader(transform=lambda images, targets, draw: (images * 0, targets), transform_unaugmented=as_it_is)
    assert batches.unaugmented(10)[:, 0, 0, 0].tolist() == list(range(0, COUNT, 11))
    assert batches.unaugmented(1000)[:, 0, 0, 0].tolist() == list(range(COUNT))


# Order


def test_every_image_comes_once_in_another_order_each_epoch() -> None:
    batches = loader()
    first = shown(batches)
    assert {len(batch) for batch in first} == {9, 10}, "as even as can be"
    assert sorted(flat(first)) == list(range(COUNT))
    batches.sampler.set_epoch(1)
    second = shown(batches)
    assert sorted(flat(second)) == list(range(COUNT))
    assert second != first
    batches.sampler.set_epoch(0)
    assert shown(batches) == first
    assert shown(loader(seed=8)) != first


def test_without_shuffling_images_are_in_dataset_order() -> None:
    assert flat(shown(loader(shuffle=False))) == list(range(COUNT))


def test_drop_last_shows_whole_batches_of_changing_images() -> None:
    batches = loader(drop_last=True)
    left_out = []
    for epoch in range(2):
        batches.sampler.set_epoch(epoch)
        epochs = shown(batches)
        assert [len(batch) for batch in epochs] == [10] * 10
        left_out.append(set(range(COUNT)) - set(flat(epochs)))
    assert left_out[0] != left_out[1]
    assert [len(batch) for batch in shown(loader(5, drop_last=True))] == [5]


def test_balanced_order_is_that_of_a_weighted_random_sampler() -> None:
    weights = torch.tensor([1.0, 1.0, 6.0, 2.0])
    order = EpochSampler(4, 3, weights=weights)
    drawn: Counter[int] = Counter()
    for epoch in range(2000):
        order.set_epoch(epoch)
        drawn.update(order)
    peer = Counter(WeightedRandomSampler(weights.tolist(), 8000, generator=torch.Generator().manual_seed(0)))
    for position in range(4):
        assert drawn[position] / 8000 == pytest.approx(weights[position].item() / 10, abs=0.02)
        assert drawn[position] == pytest.approx(peer[position], abs=250)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_together_yield_the_images_of_one_process(world_size: int, drop_last: bool) -> None:
    alone = shown(loader(batch_size=6 * world_size, drop_last=drop_last))
    ranks = [
        shown(loader(batch_size=6, drop_last=drop_last, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    for step, together in enumerate(alone):
        assert flat([batches[step] for batches in ranks]) == together
        assert all(batches[step] for batches in ranks)


def test_every_rank_has_an_image_in_every_batch() -> None:
    ranks = [shown(loader(5, batch_size=1, rank=rank, world_size=2)) for rank in range(2)]
    assert all(batch for batches in ranks for batch in batches)
    assert sorted(flat(ranks[0]) + flat(ranks[1])) == list(range(5))


def test_fewer_images_than_devices_are_refused() -> None:
    with pytest.raises(DataError, match="each of 4 devices, but got 3"):
        loader(3, shuffle=False, world_size=4)


# Resuming


def test_the_state_is_of_plain_numbers() -> None:
    state = loader(batch_size=PositiveInt(10)).state_dict()
    assert {type(value) for value in state.values()} == {int}


@pytest.mark.parametrize("stop", [0, 1, 6, 11])
def test_a_resumed_epoch_yields_exactly_the_remaining_images(stop: int) -> None:
    whole = loader()
    whole.sampler.set_epoch(3)
    expected = shown(whole)
    interrupted = loader()
    interrupted.sampler.set_epoch(3)
    batches = iter(interrupted)
    before = [next(batches)[0][:, 0, 0, 0].tolist() for _ in range(stop)]
    state = interrupted.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(3)
    assert before + shown(resumed) == expected
    assert len(resumed) == len(expected)
    resumed.sampler.set_epoch(4)
    whole.sampler.set_epoch(4)
    assert shown(resumed) == shown(whole)


def test_a_state_of_an_epochs_end_starts_the_next_one_whole() -> None:
    ended = loader()
    shown(ended)
    resumed = loader()
    resumed.load_state_dict(ended.state_dict())
    resumed.sampler.set_epoch(1)
    ended.sampler.set_epoch(1)
    assert shown(resumed) == shown(ended)


def test_an_interrupted_epoch_with_workers_starts_from_scratch(sample_root: Path) -> None:
    batches = sample(sample_root, num_workers=2, train_transforms=[v2.RandomCrop(32, 4)]).train_dataloader()
    expected = digests(batches)
    next(iter(batches))
    assert digests(batches) == expected


def test_the_seed_of_a_checkpoint_is_kept() -> None:
    first = loader()
    next(iter(first))
    other = loader(seed=99)
    other.load_state_dict(first.state_dict())
    assert shown(other) == shown(loader())[1:]


def test_another_batch_size_within_an_epoch_is_refused() -> None:
    first = loader()
    next(iter(first))
    with pytest.raises(DataError, match=r"batch_size 10 as in the checkpoint.*but got 5"):
        loader(batch_size=5).load_state_dict(first.state_dict())
    shown(first)
    loader(batch_size=5).load_state_dict(first.state_dict())  # at the end of an epoch any batch size is valid


def test_another_number_of_devices_resumes_within_an_epoch_if_the_global_batch_size_is_equal() -> None:
    first = loader()
    next(iter(first))
    halves = [loader(batch_size=5, rank=rank, world_size=2) for rank in range(2)]
    for half in halves:
        half.load_state_dict(first.state_dict())
    both = [first_half + second_half for first_half, second_half in zip(*map(shown, halves), strict=True)]
    assert both == shown(loader())[1:]
    with pytest.raises(DataError, match=r"batch_size 10 and world_size 1 as in the checkpoint.*but got 4 and 2"):
        loader(batch_size=4, rank=0, world_size=2).load_state_dict(first.state_dict())


class Recorder(Callback):
    """Record a digest of every training batch."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        images, targets = batch
        self.seen.append(hashlib.sha256(images.numpy().tobytes() + targets.numpy().tobytes()).hexdigest())


class SaveOften(Callback):
    """Write a checkpoint after every fourth step, every validation and every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step % 4 == 0:
            trainer.save_checkpoint(self.folder / f"step_{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"val_{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"end_{trainer.global_step}.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1.0, 5])
def test_a_run_resumed_anywhere_sees_the_batches_that_it_had_not_seen(
    sample_root: Path, tmp_path: Path, make_classifier, limit: float
) -> None:
    def fit(recorder: Recorder, ckpt_path: str | None = None) -> None:
        Trainer(
            accelerator="cpu",
            max_epochs=2,
            limit_train_batches=limit,
            limit_val_batches=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[recorder, *([] if ckpt_path else [SaveOften(tmp_path)])],
        ).fit(
            make_classifier(),
            datamodule=SampleDataModule(
                root=str(sample_root), batch_size=200, num_workers=0, batch_transforms=[RandomCrop(2)]
            ),
            ckpt_path=ckpt_path,
            weights_only=False,  # the hyperparameters contain the network's class, which a config would name
        )

    whole = Recorder()
    fit(whole)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) == len(whole.seen) // 4 + 4
    for checkpoint in checkpoints:
        resumed = Recorder()
        fit(resumed, str(checkpoint))
        step = int(checkpoint.stem.split("_")[1])
        assert resumed.seen == whole.seen[step:], checkpoint.name


# Reproducibility


@pytest.mark.parametrize("transforms", [[], [v2.RandomCrop(32, 4), v2.ColorJitter(0.3), v2.RandomHorizontalFlip()]])
def test_batches_are_identical_for_any_number_of_workers_and_any_cache(sample_root: Path, transforms: list) -> None:
    results = []
    own = [RandomCrop(4), RandomHorizontalFlip(), MixUp()]
    for cache, workers in (("none", 0), ("none", 2), ("disk", 1), ("disk" if transforms else "device", 0)):
        options = {"cache": cache, "num_workers": workers, "train_transforms": transforms, "batch_transforms": own}
        batches = sample(sample_root, **options, seed=3).train_dataloader()
        epochs = []
        for epoch in (0, 1):
            batches.sampler.set_epoch(epoch)
            epochs.append(digests(batches))
        assert epochs[0] != epochs[1]
        results.append(epochs)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_networks_random_numbers(sample_root: Path, workers: int) -> None:
    data = sample(sample_root, num_workers=workers, train_transforms=[v2.RandomCrop(32, 4)])
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for _ in data.train_dataloader():
        pass
    assert torch.equal(torch.rand(3), expected)


def test_a_resumed_epoch_is_augmented_as_it_would_have_been(sample_root: Path) -> None:
    for transforms in ([], [v2.RandomCrop(32, 4)]):
        whole = digests(sample(sample_root, train_transforms=transforms, batch_transforms=[MixUp()]).train_dataloader())
        first = sample(sample_root, train_transforms=transforms, batch_transforms=[MixUp()]).train_dataloader()
        batches = iter(first)
        next(batches), next(batches)
        second = sample(sample_root, train_transforms=transforms, batch_transforms=[MixUp()]).train_dataloader()
        second.load_state_dict(first.state_dict())
        assert digests(second) == whole[2:]


class Recording(TorchDispatchMode):
    """Record the name of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_on_the_host_with_pixels_on_the_device(sample_root: Path) -> None:
    data = sample(sample_root, cache="device", batch_transforms=[RandomCrop(4), RandomHorizontalFlip(), MixUp()])
    batches = data.train_dataloader()
    with Recording() as recording:
        for _ in batches:
            pass
    assert "index_select" in recording.names
    assert not recording.names & {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select"}


def test_render_shows_chosen_images_of_an_epoch(sample_root: Path) -> None:
    data = sample(sample_root, batch_transforms=[RandomCrop(4)])
    batches = data.train_dataloader()
    first, targets = batches.render(torch.tensor([5, 2]), 0)
    assert torch.equal(batches.render(torch.tensor([5, 2]), 0)[0], first)
    assert not torch.equal(batches.render(torch.tensor([5, 2]), 1)[0], first)
    assert targets.tolist() == data.datasets["train"].targets[[5, 2]].tolist()
    np.testing.assert_equal(first.shape, (2, 3, 32, 32))


def test_fewer_images_than_a_whole_batch_are_used_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert flat(shown(loader(count=5, batch_size=8, drop_last=True, shuffle=False))) == [0, 1, 2, 3, 4]
    assert "All 5 training images form one batch of less than 8." in caplog.text


def leave_no_shared_memory(image: Tensor) -> Tensor:
    """Limit the size of files, and so of shared memory, to one byte in this worker process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return image


def test_too_little_shared_memory_raises_instead_of_hanging() -> None:
    batches = loader(num_workers=1)
    batches.dataset.transform = leave_no_shared_memory
    with pytest.raises(DataError, match=r"for batches of 0\.000\d+ MB .* File too large \(27\)\. Increase it"):
        next(iter(batches))


class KillWorker(Callback):
    """Kill a process that loads images, as the system does when memory runs out."""

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == 1:
            for process in multiprocessing.active_children():  # those of earlier tests are among them
                process.kill()


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_with_a_line(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [
        "--data.num_workers=1",
        "--data.cache=none",
        "--callbacks=false",
        "--trainer.callbacks=[test_loader.KillWorker]",
    ]
    with pytest.raises(SystemExit, match="1"):
        main(["fit", *fast, *more, "--trainer.num_sanity_val_steps=0", f"--runs_dir={tmp_path}"])
    message = capsys.readouterr().err
    assert re.search(r"(?m)^error: DataLoader worker \(pid.*\. It may have run out of memory\.", message), message
