"""A small dataset of real images that needs no download."""

from typing import Any

import numpy as np
from PIL import Image

from datamodules.base import ImageDataModule
from datamodules.preparation.index import STAGES, Entry
from datamodules.preparation.split import divide
from datamodules.preparation.write_pngs import ImageBatch, convert, is_converted, list_converted, verify

SIZE = 32  # pixels
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

    def __init__(self, root: str = "data/sample", split_seed: int = 666, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.split_seed = split_seed

    @property
    def split_settings(self) -> dict[str, Any]:
        """Fractions and seed of the split."""
        return {"fractions": list(FRACTIONS), "seed": self.split_seed}

    def is_prepared(self) -> bool:
        return is_converted(self.root / "images", "all")

    def prepare_images(self) -> None:
        """Write the digits as PNG files."""
        from sklearn.datasets import load_digits  # takes a second, and only the first run needs it

        digits = load_digits()
        grey = (digits.images * (255 / 16)).round().astype(np.uint8)  # 17 levels in the source
        pixels = np.stack(
            [
                np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR).convert("RGB"))
                for image in grey
            ]
        )
        batch = ImageBatch("all", 0, pixels, digits.target)
        convert([batch], self.root / "images", self.class_names_of_source, len(pixels), self.source())

    def source(self) -> dict[str, Any]:
        return {"name": "scikit-learn's load_digits"}

    def make_split(self) -> dict[str, list[Entry]]:
        """Split the digits, stratified by class."""
        entries = list_converted(self.root / "images", "all")
        return dict(zip(STAGES, divide(entries, FRACTIONS, self.split_seed), strict=True))

    verified = "every image is as it was written"
    repair_hint = "Delete the folder images/all; the next run writes it again."

    def verify(self) -> list[str]:
        """Compare every PNG file with the manifest that was written with it."""
        return verify(self.root / "images", "all")
