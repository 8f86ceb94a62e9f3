import numpy as np

from datamodules.statistics import channel_mean_std


def test_mean_and_std_are_those_of_float64() -> None:
    rng = np.random.default_rng(0)
    images = [
        (rng.beta(2, [3, 1, 5], size=(*size, 3)) * 255).astype(np.uint8) for size in [(32, 32)] * 50 + [(7, 5), (64, 3)]
    ]
    mean, std = channel_mean_std(images)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-12)


def test_a_constant_image_has_no_spread() -> None:
    assert channel_mean_std([np.full((4, 4, 3), 255, np.uint8)]) == ([1.0] * 3, [0.0] * 3)
