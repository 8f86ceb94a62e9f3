"""A small dataset of real images that needs no network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from datamodules.convert import ImageBatch, convert, list_converted
from datamodules.images import ImageDataModule
from datamodules.index import STAGES, Entry
from datamodules.split import divide

FRACTIONS = (0.7, 0.1, 0.2)


class SampleDataModule(ImageDataModule):
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, enlarged to 32x32 RGB.

    The source is the test part of "Optical recognition of handwritten digits" (Alpaydin and Kaynak, 1998, UCI).

    Args:
        root: Data folder.
        split_seed: Seed of the split into 70 % train, 10 % val and 20 % test.
        **kwargs: See ``ImageDataModule``.
    """

    class_names_of_source = tuple(str(digit) for digit in range(10))
    image_size_of_source = 32
    subsets = ("all",)

    def __init__(self, root: str = "data/sample", split_seed: int = 666, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.split_seed = split_seed

    @property
    def recipe(self) -> dict[str, Any]:
        """Fractions and seed of the split."""
        return {"fractions": list(FRACTIONS), "seed": self.split_seed}

    def make_images(self, missing: Sequence[str]) -> None:
        """Write the digits as PNG files."""
        from sklearn.datasets import load_digits  # takes a second, and only the first run needs it

        digits = load_digits()
        grey = (digits.images * (255 / 16)).round().astype(np.uint8)  # 17 levels in the source
        size = (self.image_size_of_source, self.image_size_of_source)
        pixels = np.stack(
            [np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR).convert("RGB")) for image in grey]
        )
        batch = ImageBatch("all", 0, pixels, digits.target)
        source = {"name": "scikit-learn's load_digits"}
        convert([batch], self.root / "images", self.class_names_of_source, len(pixels), source)

    def make_split(self) -> dict[str, list[Entry]]:
        """Divide the digits, each class in the same proportion."""
        entries = list_converted(self.root / "images", "all")
        return dict(zip(STAGES, divide(entries, FRACTIONS, self.split_seed), strict=True))
