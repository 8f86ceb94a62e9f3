"""Property tests: any bytes are either read as data or raise a DataError of one line."""

import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import DataError
from datamodules.preparation.cifar10_archive import BATCHES, FOLDER, parse_batch, read_batches
from datamodules.preparation.index import check_names, read_index, text_of

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
BATCH = {b"labels": [3, 9], "names": ["a", b"\xff"], "n": -(2**40), "t": (1, None, True), b"data": PIXELS}
BATCH_PICKLES = [pickle.dumps(BATCH, protocol) for protocol in range(2, 6)]


def tried(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a function, or None if it raises a DataError of one line."""
    try:
        return function(*args)
    except DataError as error:
        message = str(error)
    assert message.splitlines() == [message]
    return None


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        end = len(content)
        start = draw(st.integers(0, end) | st.integers(0, min(end, 600)) | st.integers(max(0, end - 600), end))
        stop = draw(st.integers(start, min(end, start + 8)) | st.just(end))
        content[start:stop] = draw(st.binary(max_size=8) | st.just(content[start:stop] * 2))
    return bytes(content)


@st.composite
def instruction(draw: st.DrawFn) -> bytes:
    """Draw an instruction of a pickle with a well-formed argument."""
    info = draw(st.sampled_from(pickletools.opcodes))
    size = info.arg.n if info.arg else 0
    content = draw(st.binary(min_size=max(0, size), max_size=max(4, size)))
    lengths = {-2: 1, -3: 4, -4: 4, -5: 8}  # size in bytes of the length field, by pickletools' constant
    if size in lengths:
        content = len(content).to_bytes(lengths[size], "little") + content
    elif size < 0:  # up to the end of the line
        content = draw(st.sampled_from([b"1\n", b"'a'\n", b"os\nsystem\n", b"numpy\ndtype\n", b"_codecs\nencode\n"]))
    else:
        content = content[:size]
    return info.code.encode("latin1") + content


def check_batch(content: bytes) -> None:
    """Check that a batch file is either images and labels, or raises a DataError of one line."""
    batch = tried(parse_batch, content)
    if batch is not None:
        pixels, labels = batch
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(labels), 32, 32, 3)
        assert labels.dtype == np.int64
        assert 0 <= labels.min() <= labels.max() <= 9


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary() | st.lists(instruction(), max_size=30).map(b"".join), st.booleans())
def test_any_pickle_is_images_or_an_error(content: bytes, embedded: bool) -> None:
    first = b"\x80\x02}(U\x06labels]K\x03aU\x04data"  # the content is the value of `data`
    check_batch(first + content + b"u." if embedded else content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(BATCH_PICKLES).flatmap(mutated))
def test_any_batch_is_images_or_an_error(content: bytes) -> None:
    check_batch(content)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive with two images per batch."""
    contents = {f"{FOLDER}/{name}": BATCH_PICKLES[i % 4] for i, name in enumerate(BATCHES)}
    return write_archive(tmp_path_factory.mktemp("fuzz") / "tiny.tar.gz", contents)


def images(archive: Path) -> list[tuple[Any, ...]]:
    return [(batch.subset, batch.pixels.tobytes(), batch.labels.tolist()) for batch in read_batches(archive)]


@settings(max_examples=130, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_archive_is_its_images_or_an_error(tiny: Path, data: st.DataObject) -> None:
    evil = tiny.with_name("evil.tar.gz")
    evil.write_bytes(data.draw(mutated(tiny.read_bytes())))
    assert tried(images, evil) in (None, images(tiny))  # gzip's checksum detects changes


LINE = st.tuples(
    st.sampled_from(["a.png", "b/c d.png", " 名\\e", "\u3000", ".. /f", "", "\0", "g\th"]) | st.text(max_size=4),
    st.sampled_from([" ", "\t", "  \t "]),
    st.sampled_from(["0", "12", "999999", "-1", ""]),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n", "\r"]),
).map("".join)
INDEX = st.binary() | st.lists(LINE, max_size=4).map(lambda lines: "".join(lines).encode()).flatmap(
    lambda content: st.just(content) | mutated(content)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=INDEX)
def test_any_index_file_is_entries_or_an_error(tiny: Path, content: bytes) -> None:
    path = tiny.with_name("train.txt")
    path.write_bytes(content)
    for file, label in tried(read_index, path) or ():
        assert file.strip()
        assert "\n" not in file
        assert 0 <= label < 10**6


NAME = st.text() | st.text("a. \t\n\r\\/名\ufeff\u3000") | st.text(st.characters(exclude_categories=["C", "Z"]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(names=st.lists(NAME, unique=True, max_size=5), label=st.integers(0, 999_999))
def test_any_names_are_read_back_or_refused(tiny: Path, names: list[str], label: int) -> None:
    def write() -> bool:
        check_names(entries)
        path.write_bytes(text_of(entries))
        return True

    path, entries = tiny.with_name("val.txt"), [(name, label) for name in names]
    if tried(write):
        assert read_index(path) == entries
