"""Read CIFAR-10's Python archive (https://www.cs.toronto.edu/~kriz/cifar.html), packed or extracted.

Nothing is extracted or executed: each batch is a pickle, a program for ``pickle``, whose instructions are only listed.
"""

import lzma
import pickletools
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from datamodules.errors import DataError, first_few
from datamodules.preparation.write_pngs import ImageBatch
from datamodules.reading.decode import printable

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {f"data_batch_{i}": ("train", 10_000 * (i - 1)) for i in range(1, 6)} | {"test_batch": ("test", 0)}
MAX_BYTES = 2**26  # of a member; an official batch has about 31 million
TOP_LEVEL = ((), (FOLDER,), (f"._{FOLDER}",))  # "./", the folder, and the file of its attributes that macOS adds
# all that the pickle of an array of uint8 refers to
FUNCTIONS = r"_codecs encode|numpy (dtype|ndarray)|numpy\._?core\.(multiarray _reconstruct|numeric _frombuffer)"
CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
EXTENDING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")  # instructions that change an existing value


def read_batches(archive: Path, subsets: Sequence[str] = ("train", "test")) -> Iterator[ImageBatch]:
    """Yield the images of these subsets of ``cifar-10-python.tar.gz`` or of the folder extracted from it, in its order.

    Raises:
        DataError: The archive or one of its batches is missing, damaged or unsafe.
    """
    missing = [name for name, (subset, _) in BATCHES.items() if subset in subsets]
    try:
        for name, content in _read_folder(archive) if archive.is_dir() else _read_tar(archive):
            if BATCHES[name][0] in subsets:
                if name not in missing:
                    raise tarfile.ReadError(f"it has {name} twice")
                missing.remove(name)
                yield ImageBatch(*BATCHES[name], *parse_batch(content))
        if missing:
            raise tarfile.ReadError(f"it has no {', '.join(missing)}")
    except DataError as error:
        raise DataError(f"{archive}: {name} {error}. Get the archive again.") from error
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"Expected {ARCHIVE} or the folder {FOLDER}, but {archive} is neither or cannot be read ({error}). "
            f"Download it from {PAGE}; for other images, use --data datamodules.FolderDataModule."
        ) from error


def parse_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels, uint8 ``(N, 32, 32, 3)``, and labels, int64 ``(N,)``, of a batch file.

    Raises:
        DataError: It is damaged, of the wrong shape, or refers to other functions than an array of uint8 does.
    """
    try:
        values = _read_pickle(content)
        batch = dict(zip(values[::2], values[1::2], strict=True))
        match batch.get("data"):
            case [_, _, [1, shape, [_, [str(kind), *_], *_], order, text]]:
                pass  # the state of numpy.core.multiarray._reconstruct: protocols 0 to 4
            case [_, [text, [_, [str(kind), *_], *_], shape, order]]:
                pass  # the arguments of numpy.core.numeric._frombuffer: protocol 5
            case data:
                raise DataError(f"holds {type(data).__name__} as `data`, but expected an array of uint8")
        labels = batch.get("labels") or [None]
        if wrong := {label if type(label) is int else type(label).__name__ for label in labels} - {*range(10)}:
            raise DataError(f"holds the label {first_few(sorted(map(str, wrong)))}, but expected integers from 0 to 9")
        if kind != "u1" or shape != [len(labels), 3072]:
            got = f"{kind!r:.20} {tuple(map(int, shape))} as `data` and {len(labels)} labels"
            raise DataError(f"holds {got}, but expected 'u1' (uint8) of shape (N, 3072) and N labels")
        data = np.frombuffer(text.encode("latin1"), np.uint8).reshape(shape, order="F" if order in (True, "F") else "C")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"is damaged ({type(error).__name__}: {str(error)[:200]})") from error
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in (folder / name for name in BATCHES if (folder / name).is_file()):
        if path.stat().st_size > MAX_BYTES:
            raise tarfile.ReadError(f"{path.name} has more than {MAX_BYTES} bytes")
        yield path.name, path.read_bytes()


def _read_tar(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches of a tar file, packed or not, which may hold only files and folders in ``FOLDER``."""
    if not tarfile.is_tarfile(archive):
        raise tarfile.ReadError(f"it is {'a zip file' if zipfile.is_zipfile(archive) else 'not a tar file'}")
    with tarfile.open(archive) as tar:
        for member in tar:
            path, name = PurePosixPath(member.name), printable(member.name)
            if path.parts[:1] not in TOP_LEVEL or ".." in path.parts:
                raise tarfile.ReadError(f"it holds {name}")
            if not (member.isfile() or member.isdir()) or not 0 <= member.size <= MAX_BYTES:
                raise tarfile.ReadError(f"its member {name} is a link or a device, or has more than {MAX_BYTES} bytes")
            if path.parent == PurePosixPath(FOLDER) and path.name in BATCHES and member.isfile():
                yield path.name, tar.extractfile(member).read()  # type: ignore[union-attr]  # None only for folders
        while tar.fileobj and tar.fileobj.read(MAX_BYTES):  # gzip compares its checksum after the last byte
            pass


def _read_pickle(content: bytes) -> Any:
    """Return the value of a pickle as numbers, text (bytes as latin1) and lists.

    A dict is ``[key, value, ...]``, and the object that a function would return is ``[function, arguments, state]``.
    """
    stack, marks, memo = list[Any](), list[int](), dict[Any, Any]()
    for opcode, value, _ in pickletools.genops(content):
        name, taken = opcode.name, opcode.stack_before
        if value is not None and opcode.stack_after and "GET" not in name:
            stack.append(value.decode("latin1") if isinstance(value, (bytes, bytearray)) else value)
        elif name == "MARK":
            marks.append(len(stack))
        elif "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if value is None else value] = stack[-1]
        elif "GET" in name or name in CONSTANTS:
            stack.append(memo[value] if "GET" in name else CONSTANTS[name])
        elif opcode.stack_after:
            start = marks.pop() if pickletools.markobject in taken else len(stack) - len(taken) + (name in EXTENDING)
            items, stack[start:] = stack[start:], []
            if name in EXTENDING:
                stack[-1].extend(items)
            else:  # Python 3 writes bytes as a call of _codecs.encode(text, "latin1") in protocol 2
                stack.append(items[1][0] if items[:1] == ["_codecs encode"] else items)
        if name in ("GLOBAL", "INST", "STACK_GLOBAL") and not re.fullmatch(FUNCTIONS, value or " ".join(stack[-1])):
            raise DataError(f"is refused, because it uses {stack[-1]!r:.200}, and CIFAR-10 needs only arrays of uint8")
    return stack.pop()
