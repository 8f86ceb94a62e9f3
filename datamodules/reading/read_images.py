"""Read image files as uint8 RGB pixels of one size."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.errors import DataError
from datamodules.reading.decode import Resize, read_rgb, read_square
from datamodules.reading.png import MAX_FILE, decode_pngs


def read_images(
    paths: Sequence[str],
    size: int,
    resize: Resize | None,
    on_error: Callable[[int, DataError], None] | None = None,
    on_loss: Callable[[int, str], None] | None = None,
) -> np.ndarray:
    """Return the pixels of image files, uint8 ``(N, 3, size, size)``.

    Args:
        paths: Image files. Those that ``encode_pngs`` wrote are read several times faster than others.
        size: Side of the result in pixels.
        resize: How images of another size are resized; None if another size is an error.
        on_error: Called with the position of a file that cannot be read, whose pixels are then black.
        on_loss: Called with the position of a file and each key of ``decode.LOSSES`` that applies to it.

    Raises:
        DataError: A file is missing, not an image or of another size, and ``on_error`` is None.
    """
    pixels = _read_own(paths)
    if pixels is not None and pixels.shape[1:3] == (size, size):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    images = np.zeros((len(paths), 3, size, size), np.uint8)
    for position, path in enumerate(paths):
        try:
            note = None if on_loss is None else partial(on_loss, position)
            images[position] = _read_one(path, size, resize, note).transpose(2, 0, 1)
        except DataError as error:
            if on_error is None:
                raise
            on_error(position, error)
    return images


def _read_one(path: str, size: int, resize: Resize | None, on_loss: Callable[[str], None] | None = None) -> np.ndarray:
    if resize is not None:
        return read_square(path, size, resize, on_loss)
    pixels = read_rgb(path, on_loss)
    height, width, _ = pixels.shape
    if (height, width) != (size, size):
        raise DataError(
            f"Expected images of {size}x{size} pixels like the first, but {path} has {width}x{height}. Set "
            "--data.image_size to resize all images."
        )
    return pixels


def paths_of(root: Path, files: Sequence[str]) -> list[str]:
    """Return the paths of files, ten times as fast as ``root / file`` for each."""
    folder = os.path.join(root, "")
    return [os.path.join(root, file) if file[0] == "/" or file[1:2] == ":" else folder + file for file in files]


def _read_own(paths: Sequence[str]) -> np.ndarray | None:
    """Return the pixels of files that ``encode_pngs`` wrote, uint8 ``(N, H, W, 3)``, or None if any is another file."""
    contents = []
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY)  # three times as fast as open()
        except OSError:
            return None  # the general decoder reports the problem
        try:
            contents.append(os.read(file, MAX_FILE + 1))
        except OSError:
            return None
        finally:
            os.close(file)
    return decode_pngs(contents) if contents else None
