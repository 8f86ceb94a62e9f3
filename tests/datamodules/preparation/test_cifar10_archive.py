import gzip
import io
import os
import pickle
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXTRACT, PER_CLASS, batch_content, write_archive

from datamodules import DataError
from datamodules.preparation.cifar10_archive import BATCHES, FOLDER, MAX_BYTES, parse_batch, read_batches

PIXELS = np.arange(3072, dtype=np.uint8)[None]


def test_pixels_and_labels_are_those_of_the_archive(archive: Path, contents: dict[str, bytes]) -> None:
    batches = list(read_batches(archive))
    assert [(batch.subset, batch.first_index) for batch in batches] == [
        *(("train", start) for start in range(0, 50_000, 10_000)),
        ("test", 0),
    ]
    for batch, content in zip(batches, contents.values(), strict=True):
        original = pickle.loads(content)
        assert batch.pixels.shape == (10 * PER_CLASS, 32, 32, 3)
        for channel in range(3):
            expected = original[b"data"][:, channel * 1024 : (channel + 1) * 1024].reshape(-1, 32, 32)
            np.testing.assert_array_equal(batch.pixels[..., channel], expected)
        assert batch.labels.tolist() == original[b"labels"]


# Pickles that are read


def long_text(content: bytes) -> bytes:
    return b"T" + len(content).to_bytes(4, "little") + content


DTYPE = b"cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b"
DTYPE_STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
ARRAY = EMPTY_ARRAY + b"(K\x01K\x01M\x00\x0c\x86" + DTYPE + DTYPE_STATE + b"\x89" + long_text(PIXELS.tobytes()) + b"tb"
OFFICIAL = (  # the instructions of an official batch, which Python 2.7 wrote
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(K\x06e"
    b"U\x04dataq\x06" + ARRAY + b"U\x09filenamesq\x0c]q\x0d(U\x05a.pngq\x0eeu."
)


def test_official_pickles_are_read() -> None:
    pixels, labels = parse_batch(OFFICIAL)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2).reshape(1, 3072), PIXELS)
    assert labels.tolist() == [6]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("module", [b"numpy._core.", b"numpy.core."], ids=["NumPy 2", "NumPy 1"])
def test_pickles_of_every_protocol_are_read(protocol: int, order: Any, module: bytes) -> None:
    data = np.random.default_rng(0).integers(0, 256, (12, 3072), np.uint8).copy(order)
    data.flags.writeable = order == "C"
    batch = {"first": data, b"data": data, "labels": [*range(10), 3, 3], b"names": [b"\xff.png", "名"], "n": 300}
    content = pickle.dumps(batch, protocol)
    if module == b"numpy.core." and protocol < 4:  # since protocol 4, the name is prefixed with its length
        content = content.replace(b"numpy._core.", module)
        assert module in content
    pixels, labels = parse_batch(content)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2).reshape(12, 3072), data)
    assert labels.tolist() == batch["labels"]


# Pickles that are refused


class RunsCode:
    def __init__(self, function: object, *args: object) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple:
        return self.reduced


@pytest.mark.parametrize(
    "evil",
    [
        RunsCode(os.system, "echo owned > {}"),
        RunsCode(subprocess.Popen, "{}"),
        RunsCode(eval, "__import__('pathlib').Path('{}').touch()"),
        RunsCode(np.load, "{}"),
        RunsCode(np.ndarray, (10**12,)),
        RunsCode(np.dtype, [("a", "u1"), ("b", "O")]),
    ],
    ids=lambda evil: evil.reduced[0].__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickle_with_code_is_refused(tmp_path: Path, evil: RunsCode, protocol: int) -> None:
    mark = tmp_path / "owned"
    evil.reduced = (evil.reduced[0], tuple(a.format(mark) if isinstance(a, str) else a for a in evil.reduced[1]))
    content = pickle.dumps({"data": evil, "labels": []}, protocol)
    archive = write_archive(tmp_path / "evil.tar.gz", {f"{FOLDER}/data_batch_2": content})
    with pytest.raises(DataError, match=r"evil\.tar\.gz: data_batch_2 (is refused|holds)"):
        list(read_batches(archive))
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_with_code_next_to_its_images_is_refused(protocol: int) -> None:
    batch = {"data": PIXELS, "labels": [6], "more": RunsCode(os.system, "false")}
    with pytest.raises(DataError, match=r"is refused, because it uses .*system"):
        parse_batch(pickle.dumps(batch, protocol))


ENCODE = b"c_codecs\nencode\nq\x01"
REFUSED = {
    "GLOBAL": b"cos\nsystem\n.",
    "GLOBAL within numpy": b"cnumpy.core.multiarray\nfromfile\n.",
    "STACK_GLOBAL of a dotted name": b"\x8c\x05numpy\x8c\x15ndarray.__class__.mro\x93.",
    "REDUCE": b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    "REDUCE of more pixels than bytes": (
        b"cnumpy.core.numeric\n_frombuffer\n(U\x01a" + DTYPE + b"J\x00\x00\x00\x7f\x85\x8c\x01CtR."
    ),
    "REDUCE of another codec": ENCODE + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    "INST": b"(\x8c\x02lsios\nsystem\n.",
    "OBJ": b"(cnumpy\nndarray\nK\x08o.",
    "EXT1": b"\x82\x01.",
    "PERSID": b"Pid\n.",
    "NEXT_BUFFER": b"\x97.",
    "BUILD of a function": ENCODE + b"N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.",
    "BUILD with a dtype of objects": EMPTY_ARRAY + b"(K\x01K\x01\x85cnumpy\ndtype\nU\x01O\x85R\x89]Natb.",
    "BUILD with more pixels than bytes": ARRAY.replace(b"K\x01M\x00\x0c", b"K\x02M\x00\x0c") + b".",
    "item of a text": b"U\x01aK\x01a.",
    "missing memo": b"h\x01.",
    "text that is no latin1": ENCODE + b"\x8c\x03" + "名".encode() + b"\x8c\x06latin1\x86R.",
}


def batch_of(data: bytes) -> bytes:
    """Return a pickle of a batch with one label, whose pixels are the value of these instructions."""
    return b"\x80\x02}(U\x06labels]K\x06aU\x04data" + data + b"u."


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_pickle_that_asks_for_more_than_arrays_is_refused(content: bytes) -> None:
    assert len(parse_batch(batch_of(ARRAY))[1]) == 1
    for pickled in (b"\x80\x02" + content, batch_of(content.removesuffix(b"."))):
        with pytest.raises(DataError, match=r"^(is refused, because it uses |is damaged \(|holds )") as error:
            parse_batch(pickled)
        assert "\n" not in str(error.value)


GIANT = (8 * 2**30).to_bytes(8, "little")
HUNGRY = {
    "BINBYTES8": b"\x8e" + GIANT + b"x.",
    "LONG4": b"\x8b\xff\xff\xff\x7fx.",
    "FRAME": b"\x95" + GIANT + b"N",
}


@pytest.mark.parametrize("content", HUNGRY.values(), ids=HUNGRY)
def test_pickle_takes_no_more_memory_than_a_batch_has_use_for(content: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(DataError):
        parse_batch(b"\x80\x04" + content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"data": np.zeros((100, 3071), np.uint8)}, r"'u1' \(100, 3071\) as `data` and 100 labels, but expected 'u1'"),
        ({b"data": np.zeros((100, 3072), np.float32)}, r"'f4' \(100, 3072\) as `data`"),
        ({b"data": np.zeros((100, 3072), object)}, r"'O8' \(100, 3072\) as `data`"),
        ({b"data": None}, "NoneType as `data`"),
        ({b"labels": [0]}, r"'u1' \(100, 3072\) as `data` and 1 labels"),
        ({b"labels": [*[0] * 99, 10]}, "the label 10, but expected integers from 0 to 9"),
        ({b"labels": [True] * 100}, "the label bool"),
        ({b"labels": np.zeros(100, np.uint8)}, "the label list, str, but expected integers from 0 to 9"),
    ],
)
def test_batch_that_is_not_as_expected_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    content = pickle.dumps(pickle.loads(batch_content(0)) | changes, protocol=2)
    with pytest.raises(DataError, match=rf"a\.tar\.gz: data_batch_3 holds {message}.*\. Get the archive again"):
        list(read_batches(write_archive(tmp_path / "a.tar.gz", {f"{FOLDER}/data_batch_3": content})))


# Extracted folders


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, **EXTRACT)
    return tmp_path / FOLDER


@pytest.mark.parametrize("size", [0, 1, 1500, 200_000, -1])
def test_truncated_batch_of_a_folder_is_named(folder: Path, size: int) -> None:
    (folder / "data_batch_4").write_bytes((folder / "data_batch_4").read_bytes()[:size])
    with pytest.raises(DataError, match=rf"{FOLDER}: data_batch_4 is damaged \(.*\)\. Get the archive again"):
        list(read_batches(folder))


def test_batch_of_a_folder_that_is_far_too_large_is_not_read(folder: Path) -> None:
    os.truncate(folder / "data_batch_4", 2**40)
    with pytest.raises(DataError, match=rf"\(data_batch_4 has more than {MAX_BYTES} bytes\)"):
        list(read_batches(folder))


# Tar files


def test_archive_truncated_at_any_point_is_named(archive: Path) -> None:
    content = archive.read_bytes()
    for size in (*range(1, len(content), len(content) // 10), *range(len(content) - 9, len(content))):
        archive.write_bytes(content[:size])
        with pytest.raises(DataError, match=rf"{archive.name} is neither or cannot be read \(.*Download it"):
            list(read_batches(archive))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{FOLDER}/data_batch_1", batch_content(0))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (zipped(), "it is a zip file"),
        (b"<!DOCTYPE html>\n<html>Not found</html>", "it is not a tar file"),
        (gzip.compress(batch_content(0)), "it is not a tar file"),
    ],
)
def test_file_of_another_kind_is_named_with_what_to_give(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError) as error:
        list(read_batches(tmp_path / "a.tar.gz"))
    assert str(error.value) == (
        f"Expected cifar-10-python.tar.gz or the folder cifar-10-batches-py, but {tmp_path}/a.tar.gz is neither or "
        f"cannot be read ({kind}). Download it from https://www.cs.toronto.edu/~kriz/cifar.html; for other images, use "
        "--data datamodules.FolderDataModule."
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar-100-python/train", "it holds cifar-100-python/train"),
        ("photos/0.png", r"it holds photos/0\.png"),
        (f"{FOLDER}/readme.html", f"it has no {', '.join(BATCHES)}"),
    ],
)
def test_archive_of_other_things_is_named_with_what_it_holds(tmp_path: Path, name: str, kind: str) -> None:
    archive = write_archive(tmp_path / "a.tar", {name: b"x"})
    with pytest.raises(DataError, match=rf"a\.tar is neither .*\({kind}\)\. Download it from https"):
        list(read_batches(archive))


def test_missing_and_duplicate_batches_are_named(tmp_path: Path, contents: dict[str, bytes]) -> None:
    contents[f"./{FOLDER}/data_batch_2"] = batch_content(9)
    with pytest.raises(DataError, match=r"a\.tar\.gz .*\(it has data_batch_2 twice\)"):
        list(read_batches(write_archive(tmp_path / "a.tar.gz", contents)))
    del contents[f"./{FOLDER}/data_batch_2"], contents[f"{FOLDER}/data_batch_4"]
    with pytest.raises(DataError, match=r"\(it has no data_batch_4\)"):
        list(read_batches(write_archive(tmp_path / "a.tar.gz", contents)))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_repacked_archive_is_read_like_the_folder(folder: Path, tmp_path: Path, mode: Any) -> None:
    (folder / "batches.meta").write_bytes(b"not looked at")
    with tarfile.open(tmp_path / "a.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo(f"./._{FOLDER}"))  # as macOS does
        tar.add(folder.parent, ".", recursive=False)
        tar.add(folder, f"./{FOLDER}")
    for packed, extracted in zip(
        sorted(read_batches(tmp_path / "a.tar"), key=lambda batch: batch[:2]),
        sorted(read_batches(folder), key=lambda batch: batch[:2]),
        strict=True,
    ):
        np.testing.assert_array_equal(packed.pixels, extracted.pixels)


@pytest.mark.parametrize("name", ["../outside", "/outside", "//outside", f"{FOLDER}/../../outside"])
def test_tar_member_outside_the_archive_is_refused(tmp_path: Path, contents: dict[str, bytes], name: str) -> None:
    archive = write_archive(tmp_path / "evil.tar.gz", {name: b"x"} | contents)
    with pytest.raises(DataError, match=r"\((it holds|its member) .*outside"):
        list(read_batches(archive))
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("kind", [*b"12346", 0x80], ids=chr)
def test_tar_member_that_is_no_file_is_refused(tmp_path: Path, kind: int) -> None:
    info = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    info.type, info.linkname = bytes([kind]), "/etc/passwd"
    (tmp_path / "evil.tar.gz").write_bytes(gzip.compress(info.tobuf() + bytes(1024)))
    with pytest.raises(DataError, match=r"its member .*data_batch_1 is a link or a device|it has no data_batch_1"):
        list(read_batches(tmp_path / "evil.tar.gz"))


def test_tar_member_of_an_impossible_size_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    info.size = 2**40
    (tmp_path / "evil.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=rf"its member .*data_batch_1 is a link .*, or has more than {MAX_BYTES} bytes"):
        list(read_batches(tmp_path / "evil.tar"))
