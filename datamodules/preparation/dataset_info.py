"""``dataset.json``: what the index files of a data folder hold, gathered once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from datamodules.preparation.index import write_text
from datamodules.preparation.statistics import constant_channels
from datamodules.reading.decode import LOSSES

FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class PixelStats:
    """What one look at every image found, at one size.

    Attributes:
        fingerprint: Of the files that were looked at, see ``cache.fingerprint``.
        mean: Mean of R, G and B over the training images, on the scale of 0 to 1.
        std: Their standard deviation.
        unreadable: Files that are no images, with the reason.
        identical: Groups of files with the same pixels in more than one of train, val and test.
        losses: Keys of ``decode.LOSSES``, each with the number of images that it applies to, and the first of them.
        digest: SHA-256 of the pixels of all images of train, val and test; "" if an earlier version looked.
    """

    fingerprint: str
    mean: list[float]
    std: list[float]
    unreadable: dict[str, str]
    identical: list[list[str]]
    losses: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    digest: str = ""

    def loss_notes(self) -> list[str]:
        """Return what decoding loses, a line for each kind of loss."""
        return [
            f"{count} images {what} (as {first}): {done}."
            for (count, first), (what, done) in ((self.losses[loss], LOSSES[loss]) for loss in self.losses)
        ]

    def contrast_notes(self) -> list[str]:
        """Return which channels are constant, in a line, or nothing if none is."""
        names = ", ".join(constant_channels(self.std))
        problem = f"The training images have no contrast in channel {names}: it is not scaled (standard deviation 1)."
        return [problem] if names else []


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a module and a reader need to know of a dataset.

    Attributes:
        class_names: Name of each label.
        counts: Number of images by stage and class.
        split: The recipe that made the index files.
        source: Where the images came from.
        digests: SHA-256 of each index file at the time of writing.
        pixels: What the images look like, by size and way of resizing, as "32 crop".
    """

    class_names: list[str]
    counts: dict[str, dict[str, int]]
    split: dict[str, Any]
    source: dict[str, Any]
    digests: dict[str, str]
    pixels: dict[str, PixelStats]


def load_description(folder: Path) -> DatasetInfo | None:
    """Return what ``dataset.json`` says, or None if there is none that this version can read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pixels = {key: PixelStats(**value) for key, value in content.pop("pixels").items()}
        return DatasetInfo(**content, pixels=pixels)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_description(folder: Path, description: DatasetInfo) -> None:
    """Write ``dataset.json``."""
    write_text(folder / FILE, json.dumps(dataclasses.asdict(description), indent=2, ensure_ascii=False) + "\n")
