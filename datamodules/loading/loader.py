"""A data loader whose order depends only on seed and epoch, with images in memory, on the accelerator or in files."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler, get_worker_info

from datamodules.errors import DataError
from datamodules.loading.dataset import ImageDataset
from datamodules.reading.read_images import paths_of
from datamodules.transforms.batch import Batch, BatchContext

Transform = Callable[[Tensor, Tensor, BatchContext], Batch]


class EpochSampler(SequentialSampler):
    """Sample the images of an epoch as a function of seed and epoch.

    The order is drawn on the CPU, so it does not depend on the training device. It is a SequentialSampler, because
    Lightning's ``overfit_batches`` replaces loaders with another one.

    Args:
        size: Number of images.
        seed: Seed of the run.
        shuffle: Whether the order is random; otherwise, it is that of the dataset in every epoch.
        weights: Sampling weight of each image, float ``(size,)``; shuffled images are then drawn with replacement, as
            by torch's ``WeightedRandomSampler``.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True, weights: Tensor | None = None) -> None:
        super().__init__(range(size))
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.weights = weights
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw().tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the positions of the images, int64 ``(size,)``."""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(int(seeds_of(1, self.seed, self.epoch)[0]))
        if self.weights is None:
            return torch.randperm(self.size, generator=generator)
        return torch.multinomial(self.weights, self.size, replacement=True, generator=generator)


def seeds_of(count: int, *key: int) -> np.ndarray:
    """Return non-negative seeds, int64 ``(count,)``, that are independent of those of any other key."""
    return (np.random.SeedSequence(key).generate_state(count, np.uint64) >> np.uint64(1)).astype(np.int64)


@dataclasses.dataclass(eq=False)
class ImageLoader:
    """Load augmented batches of a dataset on a device; sized, and resumable within an epoch.

    Under DDP, every process creates one. Together they yield the same images per step as a single process with the
    global batch size: every image exactly once per epoch, in the same number of steps on each process.

    Attributes:
        dataset: The images. Decoded images without a transform are loaded by this process, others by ``num_workers``.
        batch_size: Images in a batch, on each device. Without ``drop_last``, images are distributed evenly over the
            batches: 130 images with a batch size of 128 give two batches of 65.
        transform: Called with images, targets and ``BatchContext``; returns the network's input and the targets.
        device: Device of the batches.
        transform_unaugmented: ``transform`` without augmentation.
        shuffle: Whether to reshuffle the images in every epoch.
        balanced: Whether shuffled images are drawn with replacement, all classes equally often.
        drop_last: Whether to drop an incomplete last batch. With ``shuffle``, other images are dropped in every epoch.
        seed: Seed of shuffling and augmentation.
        num_classes: Number of classes, for mixing transforms.
        rank: Global rank of this process, one of ``world_size``.

    Raises:
        DataError: There are fewer images than processes.
    """

    dataset: ImageDataset
    batch_size: int
    transform: Transform
    device: torch.device
    transform_unaugmented: Transform | None = None
    shuffle: bool = False
    balanced: bool = False
    drop_last: bool = False
    num_workers: int = 0
    seed: int = 0
    num_classes: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if len(self.dataset) < self.world_size:
            raise DataError(
                f"Expected at least one image for each of {self.world_size} devices, but got {len(self.dataset)}. Use "
                "fewer --trainer.devices or more images."
            )
        targets = self.dataset.targets.cpu()
        weights = (1 / torch.bincount(targets).double())[targets] if self.balanced else None
        # Lightning calls set_epoch on the attribute of this name
        self.sampler = EpochSampler(len(self.dataset), self.seed, self.shuffle, weights)
        if self.drop_last and len(self.dataset) < self._global_batch:
            self.drop_last = False
            rank_zero_info(f"All {len(self.dataset)} training images form one batch of less than {self._global_batch}.")
        self.batch_sampler = None  # Lightning expects this attribute next to a sampler
        self._done = 0  # number of batches of this epoch yielded so far
        self._resume: dict[str, int] = {}
        self._plan: list[tuple[int, Tensor]] = []
        self._workers: DataLoader | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self._global_batch)
        # every process needs an image in every batch
        return whole if self.drop_last else min(whole + (rest > 0), len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.sampler.epoch
        order = self._positions()
        on_device = order if self.device.type == "cpu" else order.to(self.device, non_blocking=True)
        steps = len(self)
        parts = [self._part(step) for step in range(steps)]
        seeds = seeds_of(steps, self.seed, epoch, self.rank + 1).tolist()
        first = self._resume.pop("batch", 0) if self._resume.get("epoch") == epoch else 0
        self._resume = {}
        indices = on_device if self.dataset.targets.device == self.device else order  # else the host would block
        plan = [(seed, indices[part]) for seed, part in zip(seeds[first:], parts[first:], strict=True)]
        for step, (images, targets) in enumerate(self._fetch(plan), start=first):
            self._done = step + 1
            yield self._transform(self.transform, images, targets, seeds[step], epoch, on_device[parts[step]])

    def render(self, positions: Tensor, epoch: int, augment: bool = True) -> Batch:
        """Return the images at some positions, int64 ``(N,)``, as the network receives them in an epoch from 0."""
        transform = self.transform if augment else self.transform_unaugmented or self.transform
        seed = int(seeds_of(1, self.seed, epoch, 0)[0])
        images, targets = self.dataset.__getitems__((seed, positions))
        return self._transform(transform, images, targets, seed, epoch, positions.to(self.device))

    def unaugmented(self, count: int) -> Tensor:
        """Return about ``count`` evenly spaced images without batch augmentation, for statistics."""
        return self.render(torch.arange(0, len(self.dataset), -(-len(self.dataset) // count)), 0, augment=False)[0]

    def paths(self, batch: int) -> list[str]:
        """Return the file of each image in this process's part of a batch of the current epoch."""
        positions = self._positions()[self._part(batch)].tolist()
        return paths_of(self.dataset.root, [self.dataset.files[position] for position in positions])

    def state_dict(self) -> dict[str, int]:
        """Return the position within the epoch, for a checkpoint."""
        state = {
            "seed": self.seed,
            "epoch": self.sampler.epoch,
            "batch": self._done,
            "batch_size": self.batch_size,
            "batches": len(self),
            "world_size": self.world_size,
            "images": len(self.dataset),
        }
        # convert jsonargparse's PositiveInt to int, because loading with weights_only rejects other classes
        return {key: int(value) for key, value in state.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that were yielded before a checkpoint, with its seed.

        The number of devices may differ if the global batch size is the same.

        Raises:
            DataError: The checkpoint was saved within an epoch with another global batch size or other images.
        """
        current = self.state_dict()
        same_batch = state["batch_size"] * state["world_size"] == current["batch_size"] * current["world_size"]
        keys = ("images", "batches") if same_batch else ("images", "batch_size", "world_size")
        changed = [key for key in keys if state[key] != current[key]]
        if changed and 0 < state["batch"] < state["batches"]:
            raise DataError(
                f"Expected {' and '.join(f'{key} {state[key]}' for key in changed)} as in the checkpoint, which was "
                f"saved within an epoch, but got {' and '.join(str(current[key]) for key in changed)}. Resume with the "
                "same, or from a checkpoint saved at the end of an epoch."
            )
        self._resume, self._done = dict(state), state["batch"]
        self.seed = state["seed"]
        self.sampler.seed = state["seed"]

    def _transform(
        self, transform: Transform, images: Tensor, targets: Tensor, seed: int, epoch: int, positions: Tensor
    ) -> Batch:
        generator = torch.Generator(self.device).manual_seed(seed)
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (images, targets))
        return transform(images, targets, BatchContext(generator, epoch, positions, self.seed, self.num_classes))

    def _part(self, step: int) -> slice:
        """Return the slice of the epoch's positions that forms this process's part of a batch."""
        steps = len(self)
        shown = steps * self._global_batch if self.drop_last else len(self.dataset)
        low, high = shown * step // steps, shown * (step + 1) // steps
        each = high - low
        return slice(low + each * self.rank // self.world_size, low + each * (self.rank + 1) // self.world_size)

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    def _positions(self) -> Tensor:
        positions = self.sampler.draw()
        return positions.pin_memory() if self.device.type == "cuda" else positions

    def _fetch(self, plan: Sequence[tuple[int, Tensor]]) -> Iterator[Batch]:
        """Yield images and targets of each batch of a plan."""
        if self.dataset.pixels is not None and self.dataset.transform is None:
            pin = self.device.type == "cuda" and self.dataset.targets.device.type == "cpu"
            for batch in plan:
                images, targets = self.dataset.__getitems__(batch)
                yield (images.pin_memory(), targets.pin_memory()) if pin else (images, targets)
            return
        self._plan[:] = plan
        if self._workers is None:
            self._workers = DataLoader(
                self.dataset,
                batch_sampler=self._plan,  # type: ignore[arg-type]  # the dataset also takes a seed
                collate_fn=_shared,
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=_leave_group,
                generator=torch.Generator(),  # the default would use the global random state
            )
        try:
            yield from self._workers
        except ConnectionError:  # noticed before torch notices that the worker exited
            raise RuntimeError("DataLoader worker (pid unknown) is killed") from None


def _leave_group(worker: int) -> None:
    """Leave the process group, so that signals reach only the main process, which may still need batches."""
    os.setpgid(0, 0)


def _shared(batch: Any) -> Any:
    """Return a batch, in a worker after moving it to shared memory.

    torch does so in a thread whose errors are lost: the main process would wait for the batch forever.

    Raises:
        DataError: There is not enough shared memory.
    """
    if get_worker_info() is not None:
        try:
            for tensor in batch:
                tensor.share_memory_()
        except RuntimeError as error:
            size = sum(tensor.nbytes for tensor in batch) / 1e6
            raise DataError(
                f"Expected enough shared memory (/dev/shm) for batches of {size:.3g} MB from workers, but got: "
                f"{str(error).rpartition(': ')[2]}. Increase it (docker run --shm-size 2g), use --data.num_workers 0 "
                "or a smaller --data.batch_size."
            ) from error
    return batch
