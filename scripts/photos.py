"""Create photos, and load training batches of random crops of them, for benchmark_data.py and gpu_parts.py."""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from measure import now
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datamodules import FolderDataModule
from datamodules.loading.loader import ImageLoader
from project.cli.overhead import keep_freed_memory

SIZE, BATCH, WORKERS = 224, 128, 2
PHOTO = (500, 375)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write_photos(folder: Path, count: int) -> None:
    """Write JPEG files of 500x375 pixels at quality 85, in ten classes: random parts of scikit-learn's two photos."""
    from sklearn.datasets import load_sample_images  # takes a second

    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for label in range(10):
        (folder / f"class_{label}").mkdir(parents=True)

    def write(number: int) -> None:
        numbers, source = np.random.default_rng(number), sources[number % 2]
        height = numbers.uniform(0.6, 1) * source.height
        width = height * PHOTO[0] / PHOTO[1]
        left, top = numbers.uniform(0, source.width - width), numbers.uniform(0, source.height - height)
        box = (left, top, left + width, top + height)
        photo = source.resize(PHOTO, Image.Resampling.BICUBIC, box)
        photo.save(folder / f"class_{number % 10}" / f"{number}.jpg", quality=85)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(count)))


def transforms() -> list[Any]:
    """Return the augmentation of both loaders."""
    return [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()]


def image_folder(folder: Path) -> DataLoader:
    """Return the standard loader: photos decoded by Pillow, torchvision's transforms, two workers."""
    after = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*MEAN_STD)]
    images = torchvision.datasets.ImageFolder(str(folder), v2.Compose([*transforms(), *after]))
    options = {"shuffle": True, "drop_last": True, "num_workers": WORKERS, "persistent_workers": True}
    return DataLoader(images, BATCH, pin_memory=torch.cuda.is_available(), **options)


def originals(folder: Path, root: Path) -> ImageLoader:
    """Return this project's loader of the same photos, but for one in a hundred each for val and test."""
    keep_freed_memory()  # as ``fit`` does
    options = {"image_size": SIZE, "originals": True, "fractions": (0.98, 0.01, 0.01), "train_transforms": transforms()}
    data = FolderDataModule(str(root), str(folder), batch_size=BATCH, num_workers=WORKERS, **options)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    loader.device = DEVICE  # without a Trainer it is the CPU
    return loader


def epoch(batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Iterate over an epoch on the GPU, if there is one, and return its number of images."""
    count = sum(len(images.to(DEVICE, non_blocking=True)) for images, _ in batches)
    now()  # waits for the copies
    return count


def rows(folder: Path, count: int) -> list[tuple[str, str, Callable[[], int]]]:
    """Write photos, and return what is measured of them, who does it, and how: an epoch of either loader after one."""
    write_photos(folder / "photos", count)
    peer, own = image_folder(folder / "photos"), originals(folder / "photos", folder / "photos_data")
    what = f"{count:,} photos of 500x375 to random crops of 224x224, batch {BATCH}"
    loaders = (("ImageFolder", peer), ("this project, originals", own))
    for _, batches in loaders:
        epoch(batches)  # starts the workers
    return [(what, f"{who}, {WORKERS} workers", lambda batches=batches: epoch(batches)) for who, batches in loaders]


def memory_over_epoch(folder: Path, points: int = 8) -> list[int]:
    """Return the memory of this process and its workers in MB at equally spaced batches of an epoch."""
    loader = originals(folder / "photos", folder / "photos_data")
    wanted = {len(loader) * number // points for number in range(1, points)} | {len(loader) - 1}
    used = []
    for number, _ in enumerate(loader):
        if number in wanted:
            processes = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
            used.append(sum(map(_memory, processes)))
    return used


def _memory(pid: int) -> int:
    """Return the proportional memory of a process in MB, in which shared pages count once in all."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) // 1000


def rates(folder: Path, count: int, repeats: int) -> dict[str, list[float]]:
    """Return the images per second of each loader in alternating epochs."""
    measured: dict[str, list[float]] = {}
    for _, (_, who, do) in itertools.product(range(repeats), rows(folder, count)):
        begin = now()
        images = do()
        measured.setdefault(who, []).append(round(images / (now() - begin)))
    return measured
