"""Read image files as uint8 pixels of one size."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.errors import ImageError
from datamodules.reading.decode import Resize, read_rgb
from datamodules.reading.png import MAX_FILE, decode_pngs


def read_images(
    paths: Sequence[str],
    size: int,
    resize: Resize | None,
    errors: dict[int, ImageError] | None = None,
    losses: dict[int, list[str]] | None = None,
    channels: int = 3,
) -> np.ndarray:
    """Return the pixels of image files, uint8 ``(N, channels, size, size)``.

    Args:
        paths: Image files. Those that ``encode_pngs`` wrote are read several times faster than others.
        size: Side of the result in pixels.
        resize: How images of another size are resized; None if another size is an error.
        errors: Receives the position of each file that cannot be read, whose pixels are then black.
        losses: Receives for each position the keys of ``decode.LOSSES`` that apply to the file.
        channels: Number of channels to which images are converted, see ``read_rgb``.

    Raises:
        DataError: A file is missing, not an image or of another size, and ``errors`` is None.
    """
    pixels = _read_own(paths) if channels == 3 else None
    if pixels is not None and pixels.shape[1:3] == (size, size):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    images = np.zeros((len(paths), channels, size, size), np.uint8)
    for position, path in enumerate(paths):
        lost = None if losses is None else losses.setdefault(position, [])
        try:
            pixels = read_rgb(path, None if resize is None else size, resize or "crop", lost, channels)
            if pixels.shape[:2] != (size, size):
                got = f"{path} has {pixels.shape[1]}x{pixels.shape[0]}"
                raise ImageError(f"Expected images of {size}x{size} pixels, but {got}. Set --data.image_size.")
            images[position] = pixels.transpose(2, 0, 1)
        except ImageError as error:
            if errors is None:
                raise
            errors[position] = error
    return images


def paths_of(root: Path, files: Sequence[str]) -> list[str]:
    """Return the paths of files, ten times as fast as ``root / file`` for each."""
    folder = os.path.join(root, "")
    return [os.path.join(root, file) if file[0] == "/" or file[1:2] == ":" else folder + file for file in files]


def _read_own(paths: Sequence[str]) -> np.ndarray | None:
    """Return the pixels of files that ``encode_pngs`` wrote, uint8 ``(N, H, W, 3)``, or None if any is another file."""
    contents = []
    try:
        for path in paths:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # three times as fast as open()
            try:
                contents.append(os.read(file, MAX_FILE + 1))
            finally:
                os.close(file)
    except OSError:
        return None  # the general decoder reports the problem
    return decode_pngs(contents) if contents else None
