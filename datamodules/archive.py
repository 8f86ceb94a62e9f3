"""Read CIFAR-10's python archive, packed or extracted, without trusting it.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Each batch is a pickle, which could run any code when it is
loaded; here it can do nothing but build NumPy arrays. Nothing is extracted: members are read by their known names.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.convert import ImageBatch
from datamodules.errors import DataError

FOLDER = "cifar-10-batches-py"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {f"data_batch_{i}": ("train", 10_000 * (i - 1)) for i in range(1, 6)} | {"test_batch": ("test", 0)}


class SafeUnpickler(pickle.Unpickler):
    """Unpickler that rebuilds NumPy arrays and plain values, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return _latin1_bytes
        raise DataError(f"refused, because it wants to use {module}.{name}, and CIFAR-10 needs NumPy arrays alone")


def _empty_array(subtype: type, shape: tuple, dtype: str) -> np.ndarray:
    if subtype is not np.ndarray or tuple(shape) != (0,):
        raise DataError("refused, because it builds something other than a plain NumPy array")
    return np.ndarray((0,), dtype)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def load_pickle(content: bytes) -> Any:
    """Return what a pickle holds, if that is plain values and NumPy arrays.

    Raises:
        DataError: It is damaged or wants to use anything else.
    """
    try:
        return SafeUnpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything; whatever it is, this is not CIFAR-10
        raise DataError(f"is damaged: {error or type(error).__name__}") from error


def parse_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels, uint8 ``(N, 32, 32, 3)``, and labels, int64 ``(N,)``, of a batch file.

    Raises:
        DataError: It is damaged, unsafe, or of the wrong shape.
    """
    batch = load_pickle(content)
    if not isinstance(batch, dict):
        raise DataError(f"holds {type(batch).__name__}, but expected a dict with `data` and `labels`")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"holds {got} as `data`, but expected uint8 (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(data):
        got = f"{len(labels)} labels" if isinstance(labels, list) else type(labels).__name__
        raise DataError(f"holds {got} as `labels`, but expected a list of {len(data)}")
    if not all(isinstance(label, int) and 0 <= label < len(CLASS_NAMES) for label in labels):
        raise DataError(f"holds labels outside 0 to {len(CLASS_NAMES) - 1}")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def read_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the batch files in a ``cifar-10-batches-py`` folder or ``.tar.gz``.

    Raises:
        DataError: The archive is damaged, or holds a member that has no business in it.
    """
    if archive.is_dir():
        for name in BATCHES:
            if (archive / name).is_file():
                yield name, (archive / name).read_bytes()
        return
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                    raise DataError(
                        f"{archive} is refused: its member {member.name!r} is a link, a device or a path out of the "
                        "archive, which CIFAR-10's own archive does not have. Get it from a place that you trust."
                    )
                file = tar.extractfile(member) if parts[:-1] == [FOLDER] and parts[-1] in BATCHES else None
                if file is not None:
                    yield parts[-1], file.read()
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is damaged or no tar file ({error}). Delete it and get it again.") from error


def read_batches(archive: Path, subsets: Sequence[str] = ("train", "test")) -> Iterator[ImageBatch]:
    """Yield the images of CIFAR-10's python archive, in the order of the archive.

    Args:
        archive: ``cifar-10-python.tar.gz``, or the extracted folder ``cifar-10-batches-py``.
        subsets: Which of "train" and "test" to yield.

    Raises:
        DataError: The archive or one of its batches is missing, damaged or unsafe.
    """
    missing = {name for name, (subset, _) in BATCHES.items() if subset in subsets}
    for name, content in read_members(archive):
        if name not in missing:
            continue
        try:
            pixels, labels = parse_batch(content)
        except DataError as error:
            raise DataError(f"{archive}: {name} {error}. Get the archive again.") from error
        missing.remove(name)
        yield ImageBatch(*BATCHES[name], pixels, labels)
    if missing:
        raise DataError(
            f"Expected {FOLDER}/ with {', '.join(BATCHES)} in {archive}, but got no {', '.join(sorted(missing))}. "
            "Get the archive again."
        )
