"""Read and write ``dataset.json``, the manifest of the images that the index files list."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from atomic_files import write_atomically
from datamodules.preparation.statistics import LEAST_STD
from datamodules.reading.decode import LOSSES

FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class PixelStats:
    """Statistics of all images at one size."""

    fingerprint: str  # of the image files, see ``cache.fingerprint``
    mean: list[float]  # of each channel over the training images, on the scale of 0 to 1
    std: list[float]  # their standard deviation
    unreadable: dict[str, str]  # files that cannot be read, each with the reason
    identical: list[list[str]]  # groups of files with the same pixels in more than one of train, val and test
    losses: dict[str, list[Any]]  # by key of ``decode.LOSSES``: number of affected images, and the first of them
    digest: str  # SHA-256 of the pixels of all images of train, val and test

    def loss_notes(self) -> list[str]:
        """Return what decoding loses, one line for each kind of loss."""
        return [f"{count} images {LOSSES[loss]} (for example {first})." for loss, (count, first) in self.losses.items()]

    def contrast_notes(self) -> list[str]:
        """Return one line that names the constant channels, or no line if there are none."""
        channels = "RGB" if len(self.std) == 3 else map(str, range(1, len(self.std) + 1))
        names = ", ".join(name for name, std in zip(channels, self.std, strict=True) if std < LEAST_STD)
        problem = f"The training images have no contrast in channel {names}: it is not scaled (standard deviation 1)."
        return [problem] if names else []


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Content of ``dataset.json``."""

    class_names: list[str]  # of each label
    counts: dict[str, dict[str, int]]  # number of images by stage and class
    split: dict[str, Any]  # settings of the index files
    source: dict[str, Any]  # origin of the images
    digests: dict[str, str]  # SHA-256 of each index file
    pixels: dict[str, PixelStats]  # by size, resize mode and fold, such as "32 crop", see ``DataFolder.key``


def load_description(folder: Path) -> DatasetInfo | None:
    """Return the content of ``dataset.json`` without statistics of earlier versions; None if missing or damaged."""
    fields = {field.name for field in dataclasses.fields(PixelStats)}
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pixels = content.pop("pixels").items()
        return DatasetInfo(**content, pixels={key: PixelStats(**value) for key, value in pixels if {*value} == fields})
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_description(folder: Path, description: DatasetInfo) -> None:
    """Write ``dataset.json``."""
    text = json.dumps(dataclasses.asdict(description), indent=2, ensure_ascii=False) + "\n"
    with write_atomically(folder / FILE, durable=True) as partial:
        partial.write_text(text, encoding="utf-8")
