"""Read CIFAR-10's Python archive, packed or extracted, without trusting it.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Each batch is a pickle, a program for ``pickle``, whose
instructions are only listed. Nothing is extracted: members are read by their known names after a check of their size.
How many instructions there are is not limited: a crafted archive can waste resources.
"""

import gzip
import pickletools
import re
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


# all that the pickle of an array of uint8 refers to
FUNCTIONS = r"_codecs encode|numpy (dtype|ndarray)|numpy\._?core\.(multiarray _reconstruct|numeric _frombuffer)"
CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True}
EXTENDING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD")  # instructions that change an existing value


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
