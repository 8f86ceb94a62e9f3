import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from failing import RunsCode

from datamodules.loading.dataset import map_pixels
from datamodules.preparation.cache import CHUNK_BYTES, cache_path, fingerprint, is_cached, scan
from datamodules.reading.png import encode_pngs

SIDE = 48
COUNT = 2 * CHUNK_BYTES // (3 * SIDE * SIDE) - 7  # more than one thread's share


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the names of the images in ``tmp_path``."""
    names = [f"{i:03}.png" for i in range(COUNT)]
    for name, content in zip(names, encode_pngs(random_images()), strict=True):
        (tmp_path / name).write_bytes(content)
    return names


def random_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)


def keep(root: Path, files: list[str]) -> Path:
    """Write a cache and return its path."""
    path = cache_path(root, SIDE, None, fingerprint(root, files, SIDE, None))
    scan(root, files, SIDE, None, path)
    return path


def test_a_scan_finds_pixels_sums_and_digests_with_or_without_a_cache(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.preparation.cache.QUEUED", 2)  # several times as many are written in order
    (tmp_path / files[-1]).write_bytes((tmp_path / files[0]).read_bytes())
    images = np.concatenate([random_images()[:-1], random_images()[:1]])
    path = cache_path(tmp_path, SIDE, None, "key")
    for result in (scan(tmp_path, files, SIDE, None, None), scan(tmp_path, files, SIDE, None, path)):
        np.testing.assert_array_equal(result.sums[:, 0], images.sum((1, 2)))
        assert result.digests[-1] == result.digests[0]
        assert len(set(result.digests)) == COUNT - 1
        assert result.unreadable == {}
    assert is_cached(path, COUNT, SIDE)
    pixels = map_pixels(path)
    shutil.rmtree(tmp_path / "cache")  # harmless
    np.testing.assert_array_equal(pixels, images.transpose(0, 3, 1, 2))
    assert not is_cached(path, COUNT, SIDE)


@pytest.mark.parametrize("change", ["edited", "touched", "removed", "added", "reordered", "size", "resize"])
def test_any_change_of_files_or_settings_makes_another_fingerprint(
    tmp_path: Path, files: list[str], change: str
) -> None:
    before = fingerprint(tmp_path, files, SIDE, None)
    assert fingerprint(tmp_path, files, SIDE, None) == before
    if change == "edited":
        (tmp_path / files[3]).write_bytes(b"something of another size")
    elif change == "touched":
        stat = (tmp_path / files[3]).stat()
        os.utime(tmp_path / files[3], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif change == "removed":
        (tmp_path / files[3]).unlink()
    listed = {"added": [*files, files[0]], "reordered": files[::-1]}.get(change, files)
    after = fingerprint(tmp_path, listed, SIDE + (change == "size"), "pad" if change == "resize" else None)
    assert after != before


@pytest.mark.parametrize("damage", ["cut", "longer", "empty"])
def test_a_damaged_cache_is_not_opened(tmp_path: Path, files: list[str], damage: str) -> None:
    path = keep(tmp_path, files)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-1], "longer": content + b"x", "empty": b""}[damage])
    assert not is_cached(path, COUNT, SIDE)


def test_a_cache_with_code_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "pixels.npy"
    np.save(path, np.array([RunsCode(tmp_path / "trace")], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        map_pixels(path)
    assert not (tmp_path / "trace").exists()
    np.load(path, allow_pickle=True)
    assert (tmp_path / "trace").exists()  # the code was real


def test_a_new_cache_replaces_the_old_and_what_a_killed_one_left(tmp_path: Path, files: list[str]) -> None:
    old = keep(tmp_path, files)
    (tmp_path / "cache" / "48_as_is_killed.partial").write_bytes(b"half")
    (tmp_path / "cache" / "12_crop_other.npy").write_bytes(b"of another size")
    (tmp_path / files[0]).write_bytes(encode_pngs(random_images()[1:2])[0])
    os.utime(tmp_path / files[0], ns=(5, 5))
    new = keep(tmp_path, files)
    assert new != old
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {new.name, "12_crop_other.npy"}


def test_unreadable_files_are_found_and_black(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / files[2]).write_bytes(b"")
    (tmp_path / files[COUNT - 1]).unlink()
    path = cache_path(tmp_path, SIDE, None, "key")
    unreadable = scan(tmp_path, files, SIDE, None, path).unreadable
    assert list(unreadable) == [files[2], files[COUNT - 1]]
    assert f"{files[2]} is not a readable image" in unreadable[files[2]]
    assert not map_pixels(path)[2].any()


def test_a_full_disk_leaves_no_cache(tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = cache_path(tmp_path, SIDE, None, "key")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*key\.npy"):
        scan(tmp_path, files, SIDE, None, path)
    assert list((tmp_path / "cache").iterdir()) == []
