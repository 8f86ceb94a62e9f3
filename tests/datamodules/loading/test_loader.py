import hashlib
import multiprocessing
import re
import resource
from collections import Counter
from pathlib import Path

import pytest
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

import datamodules.loading.loader as loading
from datamodules import DataError, MixUp, RandomCrop, RandomHorizontalFlip, SampleDataModule
from datamodules.loading.dataset import ImageDataset
from datamodules.loading.loader import ImageLoader
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


def shown(batches: ImageLoader, epoch: int = 0) -> list[list[int]]:
    """Return the positions in each batch of an epoch."""
    batches.set_epoch(epoch)
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch]


def digests(batches: ImageLoader, epoch: int = 0) -> list[str]:
    """Return a digest of each batch of an epoch."""
    batches.set_epoch(epoch)
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in batches]


def sample(root: Path, **options: object) -> ImageLoader:
    data = SampleDataModule(**({"root": str(root), "batch_size": 100, "num_workers": 0} | options))
    data.setup("fit")
    return data.train_dataloader()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_paths_of_a_batch_are_those_of_its_images(world_size: int, shuffle: bool, drop_last: bool) -> None:
    for rank in range(world_size):
        batches = loader(shuffle=shuffle, drop_last=drop_last, rank=rank, world_size=world_size)
        for number, positions in enumerate(shown(batches, 3)):
            assert batches.paths(number) == [f"./{position}.png" for position in positions]


# Order


def test_order_batches_and_pictures_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    draw = loading.seeds_of
    monkeypatch.setattr(loading, "seeds_of", lambda *key: seeds.extend(draw(*key)) or draw(*key))
    batches = loader()
    batches.plan()
    batches.render(torch.arange(2), epoch=0)
    assert len(set(seeds)) == len(seeds) == 1 + len(batches) + 1


def test_every_image_comes_once_in_another_order_each_epoch() -> None:
    batches = loader()
    first, second = shown(batches, 0), shown(batches, 1)
    assert {len(batch) for batch in first} == {9, 10}, "as even as can be"
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(COUNT))
    assert first != second
    assert shown(batches, 0) == first != shown(loader(seed=8))
    assert flat(shown(loader(shuffle=False))) == list(range(COUNT))


def test_drop_last_shows_whole_batches_of_changing_images() -> None:
    batches = loader(drop_last=True)
    first, second = shown(batches, 0), shown(batches, 1)
    assert [len(batch) for batch in first] == [10] * 10
    assert set(flat(first)) != set(flat(second))
    assert [len(batch) for batch in shown(loader(5, drop_last=True))] == [5]


def test_balanced_sampling_draws_all_classes_equally_often_and_any_image_of_a_class() -> None:
    batches = loader(19, balanced=True)  # nine classes of two images and one of one
    drawn = Counter(position for epoch in range(300) for position in flat(shown(batches, epoch)))
    for position in range(19):
        assert drawn[position] / (300 * 19) == pytest.approx(0.1 if position == 9 else 0.05, abs=0.015)


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
    with pytest.raises(DataError, match="each of 4 devices, but got 3"):
        loader(3, world_size=4)


# Resuming


@pytest.mark.parametrize("stop", [0, 1, 6, 11])
def test_a_resumed_epoch_yields_exactly_the_remaining_images(stop: int) -> None:
    interrupted = loader(batch_size=PositiveInt(10))
    interrupted.set_epoch(3)
    batches = iter(interrupted)
    before = [next(batches)[0][:, 0, 0, 0].tolist() for _ in range(stop)]
    state = interrupted.state_dict()
    assert {type(value) for value in state.values()} == {int}, "as weights_only requires"
    resumed = loader(seed=99)  # that of the checkpoint is kept
    resumed.load_state_dict(state)
    assert before + shown(resumed, 3) == shown(loader(), 3)
    assert shown(resumed, 4) == shown(loader(), 4)


def test_only_the_global_batch_size_must_be_equal_within_an_epoch() -> None:
    first = loader()
    next(iter(first))
    halves = [loader(batch_size=5, rank=rank, world_size=2) for rank in range(2)]
    for half in halves:
        half.load_state_dict(first.state_dict())
    both = [first_half + second_half for first_half, second_half in zip(*map(shown, halves), strict=True)]
    assert both == shown(loader())[1:]
    with pytest.raises(DataError, match=r"103 images in 11 batches of 10 on all .* but got 103 images in 26 .* of 4\."):
        loader(batch_size=2, world_size=2).load_state_dict(first.state_dict())
    shown(first)
    loader(batch_size=5).load_state_dict(first.state_dict())  # at the end of an epoch any batch size is valid


@pytest.mark.parametrize("transforms", [[], [v2.RandomCrop(32, 4)]])
def test_a_resumed_epoch_is_augmented_as_it_would_have_been(sample_root: Path, transforms: list) -> None:
    whole, first, second = (
        sample(sample_root, train_transforms=transforms, batch_transforms=[MixUp()]) for _ in range(3)
    )
    batches = iter(first)
    next(batches), next(batches)
    second.load_state_dict(first.state_dict())
    assert digests(second) == digests(whole)[2:]


# Reproducibility


@pytest.mark.parametrize("transforms", [[], [v2.RandomCrop(32, 4), v2.ColorJitter(0.3), v2.RandomHorizontalFlip()]])
def test_batches_are_identical_for_any_number_of_workers_and_any_cache(sample_root: Path, transforms: list) -> None:
    results = []
    own = [RandomCrop(4), RandomHorizontalFlip(), MixUp()]
    torch.manual_seed(0)
    drawn = torch.rand(3)
    for cache, workers in (("none", 0), ("none", 2), ("disk", 1), ("disk" if transforms else "device", 0)):
        options = {"cache": cache, "num_workers": workers, "train_transforms": transforms, "batch_transforms": own}
        batches = sample(sample_root, **options, seed=3)
        torch.manual_seed(0)
        results.append([digests(batches, epoch) for epoch in (0, 1)])
        next(iter(batches))  # interrupted
        assert digests(batches) == results[-1][0]
        assert torch.equal(torch.rand(3), drawn), "loading draws no random numbers of the network"
    assert all(result == results[0] for result in results)
    assert results[0][0] != results[0][1]


class Recording(TorchDispatchMode):
    """Record the name of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_on_the_host_with_pixels_on_the_device(sample_root: Path) -> None:
    batches = sample(sample_root, cache="device", batch_transforms=[RandomCrop(4), RandomHorizontalFlip(), MixUp()])
    with Recording() as recording:
        for _ in batches:
            pass
    assert "index_select" in recording.names
    assert not recording.names & {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal", "masked_select"}


def test_render_shows_chosen_images_of_an_epoch(sample_root: Path) -> None:
    batches = sample(sample_root, batch_transforms=[RandomCrop(4)])
    first, again, other = (batches.render(torch.tensor([5, 2]), epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 3, 32, 32)
    assert torch.equal(batches.render(torch.tensor([5, 2]), 0)[1], batches.dataset.targets[[5, 2]])


# Failures


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
    more = ["--data.num_workers=1", "--data.cache=none", "--callbacks=false", "--trainer.num_sanity_val_steps=0"]
    with pytest.raises(SystemExit, match="1"):
        main(["fit", *fast, *more, "--trainer.callbacks=[test_loader.KillWorker]", f"--runs_dir={tmp_path}"])
    message = capsys.readouterr().err
    assert re.search(r"(?m)^error: DataLoader worker \(pid.*\. It may have run out of memory\.", message), message
