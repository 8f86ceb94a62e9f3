import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import PER_CLASS, batch_content, write_archive

from datamodules import DataError
from datamodules.archive import FOLDER, load_pickle, read_batches


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


def test_python_2_pickles_are_read() -> None:
    # as the official batches are written: protocol 2, byte strings, NumPy's old module name
    pixels = np.arange(3072, dtype=np.uint8)[None]
    content = pickle.dumps({"data": pixels, "labels": [3]}, protocol=2)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    np.testing.assert_array_equal(load_pickle(content)["data"], pixels)


def test_extracted_folder_is_read_like_the_archive(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    for packed, extracted in zip(read_batches(archive), read_batches(tmp_path / FOLDER), strict=True):
        np.testing.assert_array_equal(packed.pixels, extracted.pixels)


def test_only_the_asked_subset_is_read(archive: Path) -> None:
    assert [batch.subset for batch in read_batches(archive, ["test"])] == ["test"]


class RunsCode:
    def __init__(self, function: object, *args: object) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple:
        return self.reduced


@pytest.mark.parametrize(
    "evil",
    [
        RunsCode(os.system, "echo owned > {}"),
        RunsCode(eval, "__import__('pathlib').Path('{}').touch()"),
        RunsCode(getattr, "x", "y"),
        RunsCode(np.load, "{}"),
        RunsCode(np.ndarray, (10**12,)),
    ],
    ids=lambda evil: evil.reduced[0].__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_that_wants_to_run_code_is_refused(
    tmp_path: Path, contents: dict[str, bytes], evil: RunsCode, protocol: int
) -> None:
    mark = tmp_path / "owned"
    evil.reduced = (evil.reduced[0], tuple(a.format(mark) if isinstance(a, str) else a for a in evil.reduced[1]))
    contents[f"{FOLDER}/data_batch_2"] = pickle.dumps({"data": evil, "labels": []}, protocol)
    archive = write_archive(tmp_path / "evil.tar.gz", contents)
    with pytest.raises(DataError, match=r"data_batch_2 .*(refused|holds|damaged)"):
        list(read_batches(archive))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", f"{FOLDER}/../../outside"])
def test_tar_member_outside_the_archive_is_refused(tmp_path: Path, contents: dict[str, bytes], name: str) -> None:
    archive = write_archive(tmp_path / "evil.tar.gz", {name: b"x"} | contents)
    with pytest.raises(DataError, match=r"refused.*outside"):
        list(read_batches(archive))
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match="refused"):
        list(read_batches(archive))


def test_truncated_archive_is_named(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{archive.name} is damaged"):
        list(read_batches(archive))


def test_missing_batch_is_named(tmp_path: Path, contents: dict[str, bytes]) -> None:
    del contents[f"{FOLDER}/data_batch_4"]
    with pytest.raises(DataError, match="no data_batch_4"):
        list(read_batches(write_archive(tmp_path / "a.tar.gz", contents)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"data": np.zeros((100, 3071), np.uint8)}, r"uint8 \(100, 3071\) as `data`"),
        ({b"data": np.zeros((100, 3072), np.float32)}, r"float32 \(100, 3072\) as `data`"),
        ({b"data": b"none"}, "bytes as `data`"),
        ({b"labels": [0]}, "1 labels"),
        ({b"labels": [10] * 100}, "outside 0 to 9"),
        ({b"labels": ["cat"] * 100}, "outside 0 to 9"),
    ],
)
def test_batch_of_the_wrong_shape_is_refused(
    tmp_path: Path, contents: dict[str, bytes], changes: dict, message: str
) -> None:
    contents[f"{FOLDER}/data_batch_3"] = pickle.dumps(pickle.loads(batch_content(0)) | changes, protocol=2)
    with pytest.raises(DataError, match=f"data_batch_3 holds .*{message}"):
        list(read_batches(write_archive(tmp_path / "a.tar.gz", contents)))
