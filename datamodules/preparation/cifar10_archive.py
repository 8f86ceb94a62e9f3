"""Read CIFAR-10's Python archive, packed or extracted, without trusting it.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Each batch is a pickle, a program that ``pickle`` would run.
``load_pickle`` supports only the instructions that create plain values and arrays. Nothing is extracted: members are
read by their known names after a check of their size.
"""

import gzip
import pickletools
import tarfile
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

# A file that exceeds these limits is not CIFAR-10, and could exhaust the memory.
MAX_BYTES = 2**26  # of a member; an official batch has about 31 million
MAX_MEMBERS = 50  # the official archive has 9
MAX_INSTRUCTIONS = 300_000  # of a pickle; an official batch has about 20,000
MAX_KEY = 100  # characters of a key in a dict

FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
# members with metadata of the next one, such as long names and times; not needed here
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

# first bytes of files that are often given instead of the archive
KINDS = {
    b"PK\x03\x04": "a zip file",
    b"7z\xbc\xaf": "a 7z file",
    b"Rar!": "a rar file",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"PAR1": "a Parquet file",
    b"<": "a web page",
}


class Name(str):
    """Module and name of a function or class that a pickle refers to."""


NAMES = {
    "_codecs encode",  # how Python 3 writes bytes in protocol 2
    "numpy dtype",
    "numpy ndarray",
    "numpy.core.multiarray _reconstruct",
    "numpy.core.numeric _frombuffer",
}


def load_pickle(content: bytes) -> Any:
    """Return the content of a pickle of plain values and uint8 arrays.

    Raises:
        DataError: It is damaged, uses anything else, or needs more memory than CIFAR-10 does.
    """
    try:
        return _run(content)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise DataError(f"is damaged ({type(error).__name__}: {str(error)[:200]})") from error


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
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072 or not len(data):
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"holds {got} as `data`, but expected uint8 (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(data):
        got = f"{len(labels)} labels" if isinstance(labels, list) else type(labels).__name__
        raise DataError(f"holds {got} as `labels`, but expected a list of {len(data)}")
    for label in labels:
        if type(label) is not int or not 0 <= label < len(CLASS_NAMES):  # bool is a subclass of int, but not a label
            got = str(label) if type(label) is int else type(label).__name__
            raise DataError(f"holds the label {got}, but expected integers from 0 to {len(CLASS_NAMES) - 1}")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def read_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each batch file in a ``cifar-10-batches-py`` folder or ``.tar.gz``.

    Raises:
        DataError: The archive is damaged, or contains a member that does not belong in it.
    """
    try:
        yield from _read_folder(archive) if archive.is_dir() else _read_tar(archive)
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} is damaged or not a tar file ({error}). Delete it and get it again.") from error
    except OSError as error:
        raise DataError(
            f"Expected the folder {FOLDER} or a .tar.gz, but {archive} cannot be read ({error.strerror or error}). "
            "Give a path that you have permission to read."
        ) from error


def read_batches(archive: Path, subsets: Sequence[str] = ("train", "test")) -> Iterator[ImageBatch]:
    """Yield the images of CIFAR-10's Python archive, in the order of the archive.

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


def _read_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in (folder / name for name in BATCHES):
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise DataError(f"Expected at most {MAX_BYTES} bytes, but {path} has more. Get the archive again.")
            yield path.name, path.read_bytes()


def _read_tar(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches of a tar file, packed by gzip or not.

    ``tarfile.open`` trusts the sizes that members state, and follows any number of format extensions.
    """
    with archive.open("rb") as packed, gzip.open(packed) as unpacked:
        start = packed.peek(tarfile.BLOCKSIZE)
        for magic, kind in KINDS.items():
            if start.lstrip().startswith(magic):
                raise _other(archive, f"is {kind}")
        file = unpacked if start[:2] == b"\x1f\x8b" else packed
        seen = set()
        tops: set[str] = set()  # names of the top-level entries of the archive
        for _ in range(MAX_MEMBERS):
            header = file.read(tarfile.BLOCKSIZE)
            # gzip compares its checksum at the very end, a few KiB after the end of the tar file
            if header == bytes(tarfile.BLOCKSIZE) and len(file.read(MAX_BYTES)) < MAX_BYTES:
                if FOLDER in tops:
                    return
                raise _other(archive, _held(tops))
            try:
                member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                if tops or len(header) < tarfile.BLOCKSIZE:  # damaged or truncated
                    raise
                raise _other(archive, "is not a tar file") from error
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or member.type not in (*FILES, tarfile.DIRTYPE, *EXTENSIONS):
                raise DataError(
                    f"{archive} is refused: its member {member.name!r} is a link, a device, a sparse file or a "
                    "path out of the archive, unlike those of the official one. Get it from a source that you trust."
                )
            if member.type not in EXTENSIONS:
                tops.update(map(printable, path.parts[:1]))
                if member.size > MAX_BYTES and FOLDER not in tops:
                    raise _other(archive, _held(tops))
            if not 0 <= member.size <= MAX_BYTES:
                raise DataError(
                    f"{archive} is refused: its member {member.name!r} has {member.size} bytes, but expected at most "
                    f"{MAX_BYTES}. Get it from a source that you trust."
                )
            if member.isdir():  # a directory has no content, even if it states a size
                continue
            content = file.read(member.size)
            if len(content) < member.size:
                raise EOFError(f"it ends within {member.name!r}")
            file.read(-member.size % tarfile.BLOCKSIZE)
            if member.type in FILES and path.parent == PurePosixPath(FOLDER) and path.name in BATCHES:
                if path.name in seen:
                    raise DataError(f"Expected {path} once in {archive}, but got it twice. Get the archive again.")
                seen.add(path.name)
                yield path.name, content
    if FOLDER not in tops:
        raise _other(archive, f"{_held(tops)}, and more than {MAX_MEMBERS} members")
    raise DataError(
        f"{archive} is refused: it has more than {MAX_MEMBERS} members, but the official one has 9. Get it from a "
        "source that you trust."
    )


def _held(names: set[str]) -> str:
    """Return a description of an archive without CIFAR-10's folder."""
    return "is CIFAR-100's archive" if "cifar-100-python" in names else f"holds {first_few(sorted(names)) or 'nothing'}"


def _other(archive: Path, what: str) -> DataError:
    """Return the error for an intact file that is not CIFAR-10's Python archive."""
    return DataError(
        f"Expected {ARCHIVE} or the folder {FOLDER}, but {archive} {what}. Download it from {PAGE}, or unpack the "
        "file if it contains that folder; for other images, use --data datamodules.FolderDataModule."
    )


def _run(content: bytes) -> Any:
    """Run the instructions of a pickle; see ``pickletools`` for their meaning."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stack below each mark
    memo: dict[int, Any] = {}
    encoded = 0
    instructions: Iterator[tuple[Any, Any, Any]] = pickletools.genops(content)
    for count, (opcode, value, _) in enumerate(instructions):
        if count == MAX_INSTRUCTIONS:
            raise DataError(f"is refused, because it has more than {MAX_INSTRUCTIONS} instructions")
        match opcode.name:
            case "BININT1" | "BININT2" | "BININT" | "LONG1" | "SHORT_BINUNICODE" | "BINUNICODE":
                stack.append(value)
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                stack.append(value)
            case "SHORT_BINSTRING" | "BINSTRING":  # of Python 2
                stack.append(value.encode("latin1"))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode.name]())
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                items, stack = stack, below.pop()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPENDS" | "SETITEMS":
                items, stack = stack, below.pop()
                _add(stack[-1], items)
            case "APPEND" | "SETITEM":
                size = 1 if opcode.name == "APPEND" else 2
                items = stack[-size:]
                del stack[-size:]
                _add(stack[-1], items)
            case "GLOBAL":
                stack.append(_name(value))
            case "STACK_GLOBAL":
                stack[-2:] = [_name(" ".join(stack[-2:]))]
            case "REDUCE":
                function, arguments = stack[-2:]
                stack[-2:] = [_call(function, arguments)]
                encoded += len(stack[-1]) if isinstance(stack[-1], bytes) else 0
                if encoded > len(content):
                    raise DataError("is refused, because it encodes one text again and again")
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise _refusal(opcode.name)
    return stack.pop()


def _add(target: Any, items: list[Any]) -> None:
    match target:
        case list():
            target += items
        case dict():
            # hashing a self-referencing key or comparing long ones would never end
            if not all(type(key) in (str, bytes) and len(key) <= MAX_KEY for key in items[::2]):
                raise ValueError("a key is not a short text")
            target.update(zip(items[::2], items[1::2], strict=True))
        case _:
            raise ValueError("an item is added to a value that is not a container")


def _name(name: str) -> Name:
    name = name.replace("numpy._core.", "numpy.core.")  # NumPy 2 renamed it
    if name not in NAMES:
        raise _refusal(name.replace(" ", "."))
    return Name(name)


def _call(function: Any, arguments: Any) -> Any:
    """Return the result of a function call in a pickle of NumPy arrays, whose only dtype is uint8."""
    match function, arguments:
        case Name("_codecs encode"), (str(text), "latin1"):
            return text.encode("latin1")
        case Name("numpy dtype"), ("u1" | b"u1", *_):
            return np.dtype(np.uint8)
        case Name("numpy dtype"), (str() | bytes() as kind, *_):
            raise DataError(f"holds an array of {kind[:20]!r}, but expected uint8")
        case Name("numpy.core.multiarray _reconstruct"), (Name("numpy ndarray"), (0,), *_):
            return np.empty(0, np.uint8)
        case Name("numpy.core.numeric _frombuffer"), (raw, np.dtype() as dtype, shape, "C" | "F" as order):
            return np.frombuffer(raw, dtype).reshape(shape, order=order)
    raise _refusal("REDUCE otherwise than NumPy")


def _build(target: Any, state: Any) -> None:
    """Set the content of an array that ``_call`` created; a dtype needs no further state."""
    match target, state:
        case np.dtype(), (3, "|" | b"|", *_):
            pass
        case np.ndarray(), (1, tuple(shape), np.dtype() as dtype, fortran, bytes(raw)):
            checked: Any = (1, np.frombuffer(raw, dtype).reshape(shape).shape, dtype, fortran, raw)
            target.__setstate__(checked)
        case _:
            raise _refusal("BUILD otherwise than NumPy")


def _refusal(feature: str) -> DataError:
    return DataError(f"is refused, because it uses {feature[:200]!r}, and CIFAR-10 needs only arrays of uint8")
