"""Batches in an order that seed and epoch decide, from memory, from the accelerator or from worker processes."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler, get_worker_info

from datamodules.errors import DataError
from datamodules.loading.dataset import ImageDataset
from datamodules.reading.read_images import paths_of
from datamodules.transforms.batch import Batch, BatchContext


class SeededSampler(Sampler[int]):
    """Which images an epoch shows, and in which order: a function of the seed and the epoch alone.

    The order is drawn on the CPU, so that it is the same whatever the images lie on.

    Args:
        size: Number of images.
        seed: Seed of the run.
        weights: How often an image is drawn, relative to others, float ``(size,)``; images are then drawn with
            replacement, as torch's ``WeightedRandomSampler`` does. Without weights, each image comes once.
    """

    def __init__(self, size: int, seed: int, weights: Tensor | None = None) -> None:
        self.size = size
        self.seed = seed
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw().tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the positions of the images, int64 ``(size,)``."""
        generator = torch.Generator().manual_seed(int(seeds_of(1, self.seed, self.epoch)[0]))
        if self.weights is None:
            return torch.randperm(self.size, generator=generator)
        return torch.multinomial(self.weights, self.size, replacement=True, generator=generator)


class FixedOrderSampler(SequentialSampler):
    """The order of the dataset, in every epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch


def seeds_of(count: int, *key: int) -> np.ndarray:
    """Return seeds, int64 ``(count,)`` from 0 on, that have nothing to do with those of any other key."""
    return (np.random.SeedSequence(key).generate_state(count, np.uint64) >> np.uint64(1)).astype(np.int64)


@dataclasses.dataclass(eq=False)
class ImageLoader:
    """Batches of a dataset, on a device, augmented; sized, and able to go on in the middle of an epoch.

    Under DDP every process makes one of these, and together they show what a single process would with a batch as large
    as theirs are together: every image of an epoch exactly once, in as many steps on each.

    Attributes:
        dataset: The images. If they are decoded and have no transform of their own, they are fetched by this process
            where they lie; otherwise by worker processes.
        batch_size: Images in a batch, on each device. Unless ``drop_last``, an epoch that this does not divide has
            batches as even as can be: 130 images by 128 come as 65 and 65.
        transform: Called with images, targets and ``BatchContext``, makes what the network takes.
        transform_unaugmented: Likewise, without augmentation; ``transform`` by default.
        device: Where batches are wanted.
        shuffle: Show the images in another order every epoch.
        weights: How often an image is shown, relative to others; see ``SeededSampler``.
        drop_last: Show whole batches only; the images left out are others in every epoch.
        num_workers: Worker processes.
        seed: Seed of order and augmentation.
        num_classes: Number of classes, for mixing transforms.
        rank: Which of ``world_size`` processes this is.
        world_size: Number of processes.

    Raises:
        DataError: There are fewer images than processes.
    """

    dataset: ImageDataset
    batch_size: int
    transform: Callable[[Tensor, Tensor, BatchContext], Batch]
    device: torch.device
    transform_unaugmented: Callable[[Tensor, Tensor, BatchContext], Batch] | None = None
    shuffle: bool = False
    weights: Tensor | None = None
    drop_last: bool = False
    num_workers: int = 0
    seed: int = 0
    num_classes: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if len(self.dataset) < self.world_size:
            raise DataError(
                f"Expected an image or more for each of {self.world_size} devices, but got {len(self.dataset)}. Give "
                "fewer --trainer.devices or more images."
            )
        # Lightning sets the epoch of what it finds by this name
        shuffled = SeededSampler(len(self.dataset), self.seed, self.weights)
        self.sampler: SeededSampler | FixedOrderSampler = shuffled if self.shuffle else FixedOrderSampler(self.dataset)
        if self.drop_last and len(self.dataset) < self._global_batch:
            self.drop_last = False
            rank_zero_info(f"All {len(self.dataset)} training images make one batch of less than {self._global_batch}.")
        self.batch_sampler = None  # Lightning looks for one where there is a sampler
        self._done = 0  # batches of this epoch that were given out
        self._resume: dict[str, int] = {}
        self._plan: list[tuple[int, Tensor]] = []
        self._workers: DataLoader | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self._global_batch)
        # every process has an image in every batch
        return whole if self.drop_last else min(whole + (rest > 0), len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch
        order = self._positions()
        on_device = order if self.device.type == "cpu" else order.to(self.device, non_blocking=True)
        steps = len(self)
        mine = [self._part(step) for step in range(steps)]
        seeds = seeds_of(steps, self.seed, epoch, self.rank + 1).tolist()
        first = self._resume.pop("batch", 0) if self._resume.get("epoch") == epoch else 0
        self._resume = {}
        where = on_device if self.dataset.targets.device == self.device else order  # or the host would wait for it
        plan = [(seed, where[part]) for seed, part in zip(seeds[first:], mine[first:], strict=True)]
        for step, (images, targets) in enumerate(self._fetch(plan), start=first):
            self._done = step + 1
            draw = BatchContext(self._generator(seeds[step]), epoch, on_device[mine[step]], self.seed, self.num_classes)
            images, targets = (one.to(self.device, non_blocking=True) for one in (images, targets))
            yield self.transform(images, targets, draw)

    def render(self, positions: Tensor, epoch: int) -> Batch:
        """Return chosen images as the network would see them in an epoch.

        Args:
            positions: Of the images in the dataset, int64 ``(N,)``.
            epoch: From 0.
        """
        return self._render(positions, epoch, self.transform)

    def unaugmented(self, count: int) -> Tensor:
        """Return about ``count`` images spread over the dataset, without augmentation of batches, for statistics."""
        positions = torch.arange(0, len(self.dataset), -(-len(self.dataset) // count))
        return self._render(positions, 0, self.transform_unaugmented or self.transform)[0]

    def paths(self, batch: int) -> list[str]:
        """Return the file of each image of a batch of this epoch, as this process shows it."""
        positions = self._positions()[self._part(batch)].tolist()
        return paths_of(self.dataset.root, [self.dataset.files[position] for position in positions])

    def state_dict(self) -> dict[str, int]:
        """Return how far this epoch is, for a checkpoint."""
        state = {
            "seed": self.seed,
            "epoch": self._epoch,
            "batch": self._done,
            "batch_size": self.batch_size,
            "batches": len(self),
            "world_size": self.world_size,
            "images": len(self.dataset),
        }
        # jsonargparse's PositiveInt is a class of its own, which loading with weights_only refuses
        return {key: int(value) for key, value in state.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batches that were given out before a checkpoint, with its seed.

        The number of devices may be another, if their batches together are as large as before.

        Raises:
            DataError: The checkpoint lies within an epoch whose batches were of another size, or of other images.
        """
        now = self.state_dict()
        changed = ["images"] * (state["images"] != now["images"])
        if state["batch_size"] * state["world_size"] != now["batch_size"] * now["world_size"]:
            changed += [key for key in ("batch_size", "world_size") if state[key] != now[key]]
        changed = changed or ["batches"] * (state["batches"] != now["batches"])
        if changed and 0 < state["batch"] < state["batches"]:
            raise DataError(
                f"Expected {' and '.join(f'{key} {state[key]}' for key in changed)} as in the checkpoint, which lies "
                f"within an epoch, but got {' and '.join(str(now[key]) for key in changed)}. Go on with the same, or "
                "from a checkpoint of an epoch's end."
            )
        self._resume, self._done = dict(state), state["batch"]
        self.seed = state["seed"]
        if isinstance(self.sampler, SeededSampler):
            self.sampler.seed = state["seed"]

    def _render(
        self, positions: Tensor, epoch: int, transform: Callable[[Tensor, Tensor, BatchContext], Batch]
    ) -> Batch:
        seed = int(seeds_of(1, self.seed, epoch, 0)[0])
        images, targets = self.dataset.__getitems__((seed, positions))
        draw = BatchContext(self._generator(seed), epoch, positions.to(self.device), self.seed, self.num_classes)
        return transform(images.to(self.device), targets.to(self.device), draw)

    def _part(self, step: int) -> slice:
        """Return which of an epoch's positions make this process's part of a batch."""
        steps = len(self)
        shown = steps * self._global_batch if self.drop_last else len(self.dataset)
        low, high = shown * step // steps, shown * (step + 1) // steps
        each = high - low
        return slice(low + each * self.rank // self.world_size, low + each * (self.rank + 1) // self.world_size)

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    @property
    def _epoch(self) -> int:
        return self.sampler.epoch

    @property
    def _resident(self) -> bool:
        """Whether this process fetches the images itself."""
        return self.dataset.pixels is not None and self.dataset.transform is None

    def _positions(self) -> Tensor:
        positions = self.sampler.draw() if isinstance(self.sampler, SeededSampler) else torch.arange(len(self.dataset))
        return positions.pin_memory() if self.device.type == "cuda" else positions

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _fetch(self, plan: Sequence[tuple[int, Tensor]]) -> Iterator[Batch]:
        """Yield images and targets of each batch of a plan."""
        if self._resident:
            pin = self.device.type == "cuda" and self.dataset.targets.device.type == "cpu"
            for batch in plan:
                images, targets = self.dataset.__getitems__(batch)
                yield (images.pin_memory(), targets.pin_memory()) if pin else (images, targets)
            return
        self._plan[:] = plan
        if self._workers is None:
            self._workers = DataLoader(
                self.dataset,
                batch_sampler=self._plan,  # type: ignore[arg-type]  # the dataset takes a seed beside the positions
                collate_fn=_shared,
                num_workers=self.num_workers,
                persistent_workers=self.num_workers > 0,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=_leave_group,
                generator=torch.Generator(),  # without one, every epoch would draw from the network's random numbers
            )
        yield from self._workers


def _leave_group(worker: int) -> None:
    """Leave the process group: its signals are for the main process, which may need more images to end well."""
    os.setpgid(0, 0)


def _shared(batch: Any) -> Any:
    """Return what the dataset has put together, and lay it in shared memory in a worker.

    torch itself would do so in a thread whose errors are lost: the main process would wait for the batch for ever.

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
                f"Expected shared memory (/dev/shm) for each batch of {size:.3g} MB that workers have ready, but got: "
                f"{str(error).rpartition(': ')[2]}. Give more of it (docker run --shm-size 2g), --data.num_workers 0 "
                "or a smaller --data.batch_size."
            ) from error
    return batch
