"""A data loader whose batches depend only on seed and epoch, with images in memory, on the accelerator or in files."""

import dataclasses
import os
from collections.abc import Iterator
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from datamodules.errors import DataError
from datamodules.loading.dataset import ImageDataset
from datamodules.transforms.batch import Batch, BatchContext, BatchTransform


def seeds_of(count: int, *key: int) -> list[int]:
    """Return ``count`` non-negative seeds of 63 bits that are independent of those of any other key.

    Keys that differ only in zeros at the end have the same seeds.
    """
    return (np.random.SeedSequence(key).generate_state(count, np.uint64) >> np.uint64(1)).tolist()


@dataclasses.dataclass(eq=False)
class ImageLoader:
    """Load augmented batches of a dataset on a device; sized, and resumable within an epoch.

    Under DDP, every process creates one. Together they yield the same images per step as a single process with the
    global batch size: every image exactly once per epoch, in the same number of steps on each process.

    Attributes:
        dataset: The images. Decoded images without a transform are loaded by this process, others by ``num_workers``.
        batch_size: Images in a batch, on each device. Without ``drop_last``, images are distributed evenly over the
            batches: 130 images with a batch size of 128 give two batches of 65.
        transform: Returns the network's input and the targets.
        device: Device of the batches.
        shuffle: Whether to reshuffle the images in every epoch.
        balanced: Whether shuffled images are drawn with replacement, all classes equally often.
        drop_last: Whether to drop an incomplete last batch, unless it is the only one. With ``shuffle``, other images
            are dropped in every epoch.
        seed: Seed of shuffling and augmentation.
        num_classes: Number of classes, for mixing transforms.
        rank: Global rank of this process, one of ``world_size``.

    Raises:
        DataError: There are fewer images than processes.
    """

    dataset: ImageDataset
    batch_size: int
    transform: BatchTransform
    device: torch.device
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
        self.global_batch = self.batch_size * self.world_size
        # where Lightning finds set_epoch; for `overfit_batches`, it would replace a loader with an attribute `sampler`
        self.batch_sampler = SimpleNamespace(sampler=self)
        self.epoch = 0
        self._done = 0  # number of batches of this epoch yielded so far
        self._resume: dict[str, int] = {}
        self._plan: list[tuple[int, Tensor]] = []  # of the workers
        self._workers: DataLoader | None = None

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.global_batch)
        if self.drop_last and whole:
            return whole
        return min(whole + (rest > 0), len(self.dataset) // self.world_size)  # every process needs an image in each

    def __iter__(self) -> Iterator[Batch]:
        epoch, plan = self.epoch, self.plan()
        first = self._resume.get("batch", 0) if self._resume.get("epoch") == epoch else 0
        self._resume = {}
        batches = zip(plan[first:], self._load(plan[first:]), strict=True)
        for done, ((seed, positions), (images, targets)) in enumerate(batches, first + 1):
            self._done = done
            yield self._transform(images, targets, seed, epoch, positions)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def plan(self) -> list[tuple[int, Tensor]]:
        """Return seed and positions of each batch of this process: a function of seed, epoch and rank.

        The order of the images is drawn on the CPU, so it does not depend on the training device.
        """
        order = self._order()
        steps = len(self)
        used = min(steps * self.global_batch, len(order)) if self.drop_last else len(order)
        plan = []
        for step, seed in enumerate(seeds_of(steps, self.seed, self.epoch, self.rank + 1)):
            low, high = used * step // steps, used * (step + 1) // steps
            start, stop = (low + (high - low) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            plan.append((seed, order[start:stop]))
        return plan

    def render(self, positions: Tensor, epoch: int) -> Batch:
        """Return the images at some positions, int64 ``(N,)``, as the network receives them in an epoch from 0."""
        # unlike the seeds of the order, (seed, epoch, 0, 0), and of ranks
        (seed,) = seeds_of(1, self.seed, epoch, 0, 1)
        return self._transform(*self.dataset.__getitems__((seed, positions)), seed, epoch, positions)

    def paths(self, batch: int) -> list[str]:
        """Return the file of each image in this process's part of a batch of the current epoch."""
        return self.dataset.paths(self.plan()[batch][1])

    def state_dict(self) -> dict[str, int]:
        """Return the position within the epoch, for a checkpoint."""
        sizes = {"batch_size": self.batch_size, "world_size": self.world_size, "images": len(self.dataset)}
        state = {"seed": self.seed, "epoch": self.epoch, "batch": self._done, "batches": len(self), **sizes}
        # convert jsonargparse's PositiveInt to int, because loading with weights_only rejects other classes
        return {key: int(value) for key, value in state.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that were yielded before a checkpoint, with its seed.

        The number of devices may differ if the global batch size is the same.

        Raises:
            DataError: The checkpoint was saved within an epoch with another global batch size or other images.
        """
        before, now = (
            f"{each['images']} images in {each['batches']} batches of {each['batch_size'] * each['world_size']}"
            for each in (state, self.state_dict())
        )
        if before != now and 0 < state["batch"] < state["batches"]:
            raise DataError(
                f"Expected {before} on all devices as in the checkpoint, which was saved within an epoch, but got "
                f"{now}. Resume with the same, or from a checkpoint saved at the end of an epoch."
            )
        self._resume, self._done = dict(state), state["batch"]
        self.seed = state["seed"]

    def _order(self) -> Tensor:
        """Return the positions of all images in the order of the epoch, int64 ``(N,)``, where the targets are."""
        size, targets = len(self.dataset), self.dataset.targets
        generator = torch.Generator().manual_seed(*seeds_of(1, self.seed, self.epoch))
        if not self.shuffle:
            order = torch.arange(size)
        elif self.balanced:
            classes = targets.cpu()
            weights = (1 / torch.bincount(classes).double())[classes]
            order = torch.multinomial(weights, size, replacement=True, generator=generator)
        else:
            order = torch.randperm(size, generator=generator)
        return order if targets.device.type == "cpu" else self._move(order)

    def _move(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device; from pinned memory, so that the host does not wait for the copy."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _transform(self, images: Tensor, targets: Tensor, seed: int, epoch: int, positions: Tensor) -> Batch:
        images, targets, positions = map(self._move, (images, targets, positions))
        generator = torch.Generator(self.device).manual_seed(seed)
        white = 255 if images.dtype == torch.uint8 else 1  # mixing converts uint8 to float on the same scale
        context = BatchContext(generator, epoch, positions, self.seed, self.num_classes, white)
        return self.transform(images, targets, context)

    def _load(self, plan: list[tuple[int, Tensor]]) -> Iterator[Batch]:
        """Yield images and targets of each batch of a plan."""
        if self.dataset.pixels is not None and self.dataset.transform is None:
            for _, first in plan[:1]:
                self.dataset.read_ahead(first)
            for batch, following in zip_longest(plan, plan[1:]):
                if following is not None:
                    self.dataset.read_ahead(following[1])
                yield self.dataset.__getitems__(batch)
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
    if hasattr(os, "setpgid"):  # not on Windows
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
            raise DataError(
                f"Expected shared memory (/dev/shm) for batches of {sum(each.nbytes for each in batch) / 1e6:.3g} MB "
                f"from workers, but got: {str(error).rpartition(': ')[2]}. Increase it (docker run --shm-size 2g), use "
                "--data.num_workers 0 or a smaller --data.batch_size."
            ) from error
    return batch
