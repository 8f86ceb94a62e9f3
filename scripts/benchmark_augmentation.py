"""Benchmark augmentation of batches against torchvision per image and kornia, interleaved, and print a Markdown table.

pip install --editable '.[benchmark]'
python scripts/benchmark_augmentation.py > table.md

torchvision's v2 transforms are called once per image in the workers of a DataLoader, as usual; kornia and this project
transform whole batches of pixels in memory, kornia after converting them to floats from 0 to 1. kornia draws the
operation of RandAugment and TrivialAugment, and the order of ColorJitter, once per batch, the others for every image.
"""

import argparse
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from measure import hardware, now
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import datamodules
from datamodules.transforms.batch import BatchContext, BatchTransform

PEERS = ("torchvision", "kornia")
WORKERS = 2
SIZES = {32: 512, 224: 64}  # batch size by side
AFFINE: dict[str, Any] = {"degrees": 15, "translate": (0.1, 0.1), "scale": (0.8, 1.2), "shear": 10}
JITTER: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
# name: options of torchvision and this project, name and options of kornia; "side" is replaced
TRANSFORMS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "RandomResizedCrop": ("RandomResizedCrop", {"size": "side"}, "RandomResizedCrop", {"size": ("side", "side")}),
    "RandomRotation": ("RandomRotation", {"degrees": 15}, "RandomRotation", {"degrees": 15.0, "resample": "nearest"}),
    "RandomAffine": ("RandomAffine", AFFINE, "RandomAffine", {**AFFINE, "resample": "nearest"}),
    "RandomAffine, bilinear": ("RandomAffine", {**AFFINE, "interpolation": "bilinear"}, "RandomAffine", AFFINE),
    "ColorJitter": ("ColorJitter", JITTER, "ColorJitter", JITTER),
    "ColorJitter with hue": ("ColorJitter", {**JITTER, "hue": 0.1}, "ColorJitter", {**JITTER, "hue": 0.1}),
    "RandomGrayscale": ("RandomGrayscale", {}, "RandomGrayscale", {}),
    "RandomErasing": ("RandomErasing", {}, "RandomErasing", {"scale": (0.02, 0.33), "ratio": (0.3, 3.3)}),
    "TrivialAugmentWide": ("TrivialAugmentWide", {}, "auto.TrivialAugment", {}),
    "RandAugment": ("RandAugment", {}, "auto.RandAugment", {"n": 2, "m": 9}),
}
ALWAYS = ("RandomResizedCrop", "RandomRotation", "RandomAffine", "ColorJitter")  # p is an option of kornia's


class Images(torch.utils.data.Dataset):
    """Images in memory, transformed one at a time."""

    def __init__(self, images: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index])


def options_for(side: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with the size of images."""
    sizes = {"side": side, ("side", "side"): (side, side)}
    return {name: sizes.get(value, value) for name, value in options.items()}


def torchvision_epoch(images: Tensor, batch: int, transform: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Return a function that transforms all images in workers, which have started."""
    loader = DataLoader(Images(images, transform), batch, num_workers=WORKERS, persistent_workers=True)

    def epoch() -> None:
        for _ in loader:
            pass

    epoch()
    return epoch


def kornia_epoch(images: Tensor, batch: int, name: str, options: dict[str, Any]) -> Callable[[], None]:
    """Return a function that transforms all images in batches with kornia."""
    import kornia.augmentation

    cls: Any = kornia.augmentation
    for part in name.split("."):
        cls = getattr(cls, part)
    transform = cls(**options, **({"p": 1.0} if name in ALWAYS else {}))

    def epoch() -> None:
        for part in images.split(batch):
            transform(part.float() / 255)

    epoch()
    return epoch


def project_epoch(images: Tensor, batch: int, transform: BatchTransform) -> Callable[[], None]:
    """Return a function that transforms all images in batches with this project."""
    generator = torch.Generator(images.device).manual_seed(0)

    def epoch() -> None:
        for part in images.split(batch):
            positions = torch.arange(len(part), device=images.device)
            transform(part, positions, BatchContext(generator, 0, positions, 0, 10))

    epoch()
    return epoch


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="batches in each measurement")
    parser.add_argument("--only", nargs="*", choices=TRANSFORMS, default=[*TRANSFORMS])
    options = parser.parse_args()
    times: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for side, batch in SIZES.items():
        # smooth images: the time of some operations depends on the pixels
        coarse = torch.rand(batch * options.batches, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        images = v2.functional.to_dtype(v2.functional.resize(coarse, [side, side]), torch.uint8, scale=True)
        for name in options.only:
            own, own_options, peer, peer_options = TRANSFORMS[name]
            ours = options_for(side, own_options)
            mode = v2.InterpolationMode(ours.get("interpolation", "nearest"))
            theirs = {**ours, **({"interpolation": mode} if "interpolation" in ours else {})}
            epochs = {
                "torchvision": torchvision_epoch(images, batch, getattr(v2, own)(**theirs)),
                "this project": project_epoch(images, batch, getattr(datamodules, own)(**ours)),
            }
            try:
                epochs["kornia"] = kornia_epoch(images, batch, peer, options_for(side, peer_options))
            except ModuleNotFoundError as error:
                print(f"skipped, {error}: kornia", file=sys.stderr)
            for _ in range(options.repeats):
                for who, epoch in epochs.items():
                    begin = now()
                    epoch()
                    times[side, name][who].append(now() - begin)
            print(side, name, dict(times[side, name]), file=sys.stderr, flush=True)

    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{hardware()}; {versions}; {WORKERS} workers; median (min to max) of {options.repeats} runs.\n")
    print("| images | transform | torchvision, images/s | kornia | this project | times torchvision | times kornia |")
    print("|---|---|---|---|---|---|---|")
    for (side, name), seconds in times.items():
        count = SIZES[side] * options.batches
        rates = {
            who: [count / each for each in seconds.get(who, [])] for who in ("torchvision", "kornia", "this project")
        }
        cells = [f"{statistics.median(r):,.0f} ({min(r):,.0f} to {max(r):,.0f})" if r else "" for r in rates.values()]
        own = statistics.median(rates["this project"])
        ratios = [
            f"{own / statistics.median(rates[who]):.1f}" if rates[who] else "" for who in ("torchvision", "kornia")
        ]
        print(f"| {side}x{side}, batch {SIZES[side]} | {name} | {' | '.join([*cells, *ratios])} |")


if __name__ == "__main__":
    main()
