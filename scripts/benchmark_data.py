"""Benchmark the data path against alternatives, interleaved in one run, and print a Markdown table.

pip install --editable '.[benchmark]'
python scripts/benchmark_data.py --archive data/cifar-10-python.tar.gz > table.md
python scripts/benchmark_data.py --photos 20000 > photos.md

Alternatives: a loop with imageio as in tutorials; writing blobs of the same size; ImageFolder with a DataLoader of two
workers; torchvision's v2 transforms per image; kornia on a batch; ``np.load`` and a ``stat`` of every file. Every
figure is the median of ``--repeats`` runs, alternating with this project. All files are in the page cache. ``--photos``
adds random crops of JPEG photos, or measures them alone.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photos
import torch
import torchvision
from measure import hardware
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import datamodules
from datamodules.preparation.cifar10_archive import CLASS_NAMES, read_batches
from datamodules.preparation.write_pngs import ImageBatch, convert

BLOB = 3172  # bytes: a stored PNG file of 32x32 pixels
BATCH = 512
WORKERS = 2
CROP_AND_FLIP = [v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()]
Row = tuple[str, str, Callable[[], int]]  # what is measured, who does it, and how; it returns the number of images


def consume(batches: Iterable) -> int:
    """Iterate over an epoch and return its number of images."""
    return sum(len(images) for images, _ in batches)


def imageio_loop(batch: ImageBatch, folder: Path) -> int:
    """Write PNG files one by one."""
    import imageio.v3 as imageio

    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for i, (pixels, label) in enumerate(zip(batch.pixels, batch.labels, strict=True)):
        imageio.imwrite(folder / str(label) / f"{label}_{i}.png", pixels)
    return len(batch.labels)


def blobs(count: int, folder: Path) -> int:
    """Write files of the size of a PNG file with one thread per core and plain system calls."""
    content = os.urandom(BLOB)
    for label in range(20):
        (folder / str(label)).mkdir(parents=True)

    def write(start: int) -> None:
        for i in range(start, min(start + 500, count)):
            file = os.open(f"{folder}/{i % 20}/{i}.png", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.write(file, content)
            os.close(file)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(0, count, 500)))
    return count


def plain_blobs(count: int, folder: Path) -> int:
    """Write the same files with a loop over ``Path.write_bytes``."""
    content = os.urandom(BLOB)
    for label in range(20):
        (folder / str(label)).mkdir(parents=True)
    for i in range(count):
        (folder / str(i % 20) / f"{i}.png").write_bytes(content)
    return count


def data(root: Path, **options: object) -> datamodules.CIFAR10DataModule:
    """Return a prepared DataModule."""
    options = {"batch_transforms": [datamodules.RandomCrop(4), datamodules.RandomHorizontalFlip()], **options}
    module = datamodules.CIFAR10DataModule(root=str(root), batch_size=BATCH, num_workers=WORKERS, **options)
    module.prepare_data()
    module.setup("fit")
    return module


def first_epoch(root: Path) -> int:
    """Create the cache and iterate over one epoch."""
    shutil.rmtree(root / "cache")
    return consume(data(root).train_dataloader())


def later_epoch(root: Path, **options: object) -> Callable[[], int]:
    """Return a function that iterates over an epoch, after a first one."""
    loader = data(root, **options).train_dataloader()
    consume(loader)
    return lambda: consume(loader)


def image_folder(root: Path) -> DataLoader:
    """Return the standard loader: PNG files, torchvision's transforms, two workers."""
    mean_std = ((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    transform = v2.Compose(
        [*CROP_AND_FLIP, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*mean_std)]
    )
    images = torchvision.datasets.ImageFolder(str(root / "images" / "train"), transform)
    return DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def kornia_epoch(pixels: torch.Tensor) -> int:
    """Crop and flip batches of decoded pixels with kornia."""
    import kornia.augmentation as kornia

    augment = torch.nn.Sequential(
        kornia.RandomCrop((32, 32), padding=4),
        kornia.RandomHorizontalFlip(),
        kornia.Normalize(torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])),
    )
    for chosen in torch.randperm(len(pixels)).split(BATCH):
        augment(pixels[chosen].float() / 255)
    return len(pixels)


def warm_start(root: Path) -> int:
    """Set up prepared data for the first batch."""
    data(root)
    return 60_000


def load_and_stat(root: Path, files: list[str]) -> int:
    """Do the minimum that detects whether a file has changed."""
    np.load(next((root / "cache").glob("*.npy")), mmap_mode="r")
    for file in files:
        os.stat(file)
    return 60_000


def check_workers(root: Path) -> str:
    """Return whether two epochs are equal to the byte for any number of workers, as text."""
    digests = set()
    for workers in (0, 1, 2, 4):
        for cache in ("none", "disk"):
            module = data(root, cache=cache, train_transforms=[*CROP_AND_FLIP], batch_transforms=None)
            module.num_workers = workers
            loader = module.train_dataloader()
            digest = 0
            for epoch in range(2):
                loader.set_epoch(epoch)
                for images, targets in loader:
                    digest = hash((digest, images.numpy().tobytes(), targets.numpy().tobytes()))
            digests.add(digest)
    return "identical" if len(digests) == 1 else f"{len(digests)} different results"


def cifar_rows(folder: Path, archive: str) -> list[Row]:
    """Return what is measured of CIFAR-10."""
    batches = list(read_batches(Path(archive)))
    root = folder / "data"
    datamodules.CIFAR10DataModule(root=str(root), archive=archive).prepare_data()
    files = [f"{root}/images/{file.relative_to(root / 'images')}" for file in (root / "images").glob("*/*/*.png")]
    pixels = torch.from_numpy(np.concatenate([batch.pixels for batch in batches[:5]])).permute(0, 3, 1, 2).contiguous()
    usual = image_folder(root)
    consume(usual)
    disk, device = later_epoch(root), later_epoch(root, cache="device")
    none = later_epoch(root, cache="none")
    per_image = later_epoch(root, train_transforms=[*CROP_AND_FLIP], batch_transforms=None)

    def write(what: Callable[[Path], int | None]) -> Callable[[], int]:
        def timed() -> int:
            return what(folder / "written") or 60_000

        return timed

    return [
        ("write PNG files", "imageio loop (10,000 images)", write(lambda at: imageio_loop(batches[0], at))),
        ("write PNG files", "this project", write(lambda at: convert(batches, at, CLASS_NAMES, {}))),
        ("write PNG files", "blobs of the same size, threads", write(lambda at: blobs(60_000, at))),
        ("write PNG files", "blobs of the same size, write_bytes", write(lambda at: plain_blobs(60_000, at))),
        ("first epoch", "ImageFolder, 2 workers", lambda: consume(usual)),
        ("first epoch", "this project, creating the cache", lambda: first_epoch(root)),
        ("later epochs", "ImageFolder, 2 workers", lambda: consume(usual)),
        ("later epochs", "this project, cache disk", disk),
        ("later epochs", "this project, cache device", device),
        ("later epochs", "this project, cache none, 2 workers", none),
        ("later epochs", "this project, cache disk, torchvision v2 per image, 2 workers", per_image),
        ("later epochs", "kornia on batches of pixels in memory", lambda: kornia_epoch(pixels)),
        ("warm start", "np.load and a stat of every file", lambda: load_and_stat(root, files)),
        ("warm start", "this project", lambda: warm_start(root)),
    ]


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", help="cifar-10-python.tar.gz, or its extracted directory")
    parser.add_argument("--photos", type=int, default=0, help="number of JPEG photos to create and crop")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="working directory; default: a temporary directory")
    options = parser.parse_args()
    if not options.archive and not options.photos:
        parser.error("Expected --archive PATH, --photos N or both.")
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    rows = cifar_rows(folder, options.archive) if options.archive else []
    if options.photos:
        rows += photos.rows(folder, options.photos)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    counts: dict[tuple[str, str], int] = {}
    for repeat in range(options.repeats):
        for what, who, do in rows:
            shutil.rmtree(folder / "written", ignore_errors=True)
            os.sync()  # do not measure pending writes of others
            begin = time.perf_counter()
            try:
                counts[what, who] = do()
            except ModuleNotFoundError as error:
                print(f"skipped, {error}: {who}", file=sys.stderr)
                continue
            seconds[what, who].append(time.perf_counter() - begin)
            print(f"{repeat} {what}, {who}: {seconds[what, who][-1]:.3f} s", file=sys.stderr, flush=True)

    print(f"{hardware()}; Python {platform.python_version()}, torch {torch.__version__},")
    print(f"torchvision {torchvision.__version__}; batch {BATCH}; median of {options.repeats} runs.\n")
    print("| what | who | images/s | seconds, median (min to max) |\n|---|---|---|---|")
    for (what, who), times in seconds.items():
        median = statistics.median(times)
        spread = f"{median:.3f} ({min(times):.3f} to {max(times):.3f})"
        print(f"| {what} | {who} | {counts[what, who] / median:,.0f} | {spread} |")
    if options.archive:
        print(f"\nBatches with 0, 1, 2 and 4 workers, from files and from the cache: {check_workers(folder / 'data')}.")
    if options.photos:
        used = ", ".join(map(str, photos.memory_over_epoch(folder)))
        print(f"\nMemory of all processes with photos, MB, at equally spaced batches of an epoch: {used}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
