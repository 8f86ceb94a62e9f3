"""``dataset.json``: what the index files of a data folder hold, gathered once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.progress import track

from datamodules.dataset import read_rgb
from datamodules.errors import DataError
from datamodules.index import STAGES, count_labels, digests_of, index_path, read_index, write_text
from datamodules.statistics import channel_mean_std

FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """What a module and a reader need to know of a dataset.

    Attributes:
        class_names: Name of each label.
        image_size: Side of the (square) images in pixels.
        mean: Mean of R, G and B over the training images, on the scale of 0 to 1.
        std: Their standard deviation.
        counts: Number of images by stage and class.
        split: The recipe that made the index files.
        source: Where the images of each subset came from.
        digests: SHA-256 of each index file at the time of writing.
    """

    class_names: list[str]
    image_size: int
    mean: list[float]
    std: list[float]
    counts: dict[str, dict[str, int]]
    split: dict[str, Any]
    source: dict[str, Any]
    digests: dict[str, str]


def load_description(root: Path) -> Description | None:
    """Return what ``dataset.json`` says, or None if there is none that this version can read."""
    try:
        return Description(**json.loads((root / FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_current(description: Description, root: Path) -> bool:
    """Tell whether the index files are still those that were described."""
    try:
        return description.digests == digests_of(root)
    except FileNotFoundError:
        return False


def describe(
    root: Path, class_names: list[str], image_size: int, split: dict[str, Any], source: dict[str, Any]
) -> Description:
    """Count and measure what the index files of ``root`` hold, and write ``dataset.json``.

    Raises:
        DataError: An index file is empty or wrong, or an image is not readable.
    """
    entries = {stage: read_index(index_path(root, stage)) for stage in STAGES}
    for stage in STAGES:
        if not entries[stage]:
            raise DataError(f"{index_path(root, stage)} lists no image. Add some, or delete it to have it made anew.")
    pixels = (read_rgb(root / file) for file, _ in entries["train"])
    mean, std = channel_mean_std(track(pixels, "Measuring mean and std", total=len(entries["train"])))
    description = Description(
        class_names=class_names,
        image_size=image_size,
        mean=mean,
        std=std,
        counts={stage: count_labels(entries[stage], class_names) for stage in STAGES},
        split=split,
        source=source,
        digests=digests_of(root),
    )
    write_text(root / FILE, json.dumps(dataclasses.asdict(description), indent=2) + "\n")
    return description
