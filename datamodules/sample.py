"""A small dataset of real images that needs no download."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from datamodules.base import ImageDataModule
from datamodules.preparation.index import STAGES, Entries
from datamodules.preparation.split import divide
from datamodules.preparation.write_pngs import ImageBatch, convert, find_missing, list_converted

FRACTIONS = (0.7, 0.1, 0.2)
CLASS_NAMES = tuple(str(digit) for digit in range(10))


class SampleDataModule(ImageDataModule):
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, enlarged to 32x32 RGB.

    The source is the test part of "Optical recognition of handwritten digits" (Alpaydin and Kaynak, 1998, UCI).

    Args:
        root: Data folder.
        split_seed: Seed of the split into 70 % train, 10 % val and 20 % test.
        **kwargs: See ``ImageDataModule``.
    """

    def __init__(self, root: str = "data/sample", split_seed: int = 666, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.split_seed = split_seed

    @property
    def split_settings(self) -> dict[str, Any]:
        return {"fractions": list(FRACTIONS), "seed": self.split_seed}

    def prepare_images(self) -> None:
        if not find_missing(self.root / "images", ["all"]):
            return
        from sklearn.datasets import load_digits  # takes a second, and only the first run needs it

        digits = load_digits()
        grey = (digits.images * (255 / 16)).round().astype(np.uint8)  # 17 levels in the source
        large = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in grey]
        pixels = np.stack([np.array(image.convert("RGB")) for image in large])
        convert([ImageBatch("all", 0, pixels, digits.target)], self.root / "images", CLASS_NAMES, self.source())

    def make_split(self) -> Entries:
        entries = list_converted(self.root / "images", "all")
        return dict(zip(STAGES, divide(entries, FRACTIONS, self.split_seed), strict=True))

    def find_class_names(self, entries: Entries) -> Sequence[str]:
        return CLASS_NAMES

    def source(self) -> dict[str, Any]:
        return {"name": "scikit-learn's load_digits"}
