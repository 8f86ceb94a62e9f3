"""Read and write ``dataset.json``, which describes the images that the index files list."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from atomic_files import write_atomically
from datamodules.preparation.statistics import constant_channels
from datamodules.reading.decode import LOSSES

FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class PixelStats:
    """Statistics of all images at one size.

    Attributes:
        fingerprint: Fingerprint of the image files, see ``cache.fingerprint``.
        mean: Mean of R, G and B over the training images, on the scale of 0 to 1.
        std: Their standard deviation.
        unreadable: Files that cannot be read, each with the reason.
        identical: Groups of files with the same pixels in more than one of train, val and test.
        losses: Keys of ``decode.LOSSES``, each with the number of affected images and the first of them.
        digest: SHA-256 of the pixels of all images of train, val and test.
    """

    fingerprint: str
    mean: list[float]
    std: list[float]
    unreadable: dict[str, str]
    identical: list[list[str]]
    losses: dict[str, list[Any]]
    digest: str

    def loss_notes(self) -> list[str]:
        """Return what decoding loses, one line for each kind of loss."""
        return [
            f"{count} images {what} (for example {first}): {done}."
            for (count, first), (what, done) in ((self.losses[loss], LOSSES[loss]) for loss in self.losses)
        ]

    def contrast_notes(self) -> list[str]:
        """Return one line that names the constant channels, or no line if there are none."""
        names = ", ".join(constant_channels(self.std))
        problem = f"The training images have no contrast in channel {names}: it is not scaled (standard deviation 1)."
        return [problem] if names else []


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset for modules and readers.

    Attributes:
        class_names: Name of each label.
        counts: Number of images by stage and class.
        split: Split settings of the index files.
        source: Origin of the images.
        digests: SHA-256 of each index file at the time of writing.
        pixels: Statistics of the images by size, resize mode and fold, such as "32 crop" or "32 fold 0 of 5".
    """

    class_names: list[str]
    counts: dict[str, dict[str, int]]
    split: dict[str, Any]
    source: dict[str, Any]
    digests: dict[str, str]
    pixels: dict[str, PixelStats]


def load_description(folder: Path) -> DatasetInfo | None:
    """Return the content of ``dataset.json``, or None if it is missing or damaged.

    Statistics of an earlier version that lacks some are left out, so that they are gathered again.
    """
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
    with write_atomically(folder / FILE) as partial:
        partial.write_bytes(text.encode())
