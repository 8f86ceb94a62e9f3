from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from datamodules.preparation.index import read_index
from datamodules.reading.decode import read_rgb


def test_every_digit_is_a_grey_rgb_image_with_its_label(sample_root: Path) -> None:
    digits = load_digits()
    entries = [entry for stage in ("train", "val", "test") for entry in read_index(sample_root / f"{stage}.txt")]
    assert len(set(entries)) == len(entries) == 1797
    for path, label in entries[::50]:
        index = int(Path(path).stem.split("_")[1])
        pixels = read_rgb(sample_root / path)
        assert pixels.shape == (32, 32, 3)
        assert (pixels == pixels[:, :, :1]).all()
        assert label == digits.target[index]
        small = pixels[:, :, 0].reshape(8, 4, 8, 4).mean((1, 3))
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.95
