import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from datamodules import DataError, FolderDataModule
from datamodules.preparation.dataset_info import load_description
from datamodules.preparation.index import STAGES
from datamodules.reading.png import encode_pngs

WHITE = encode_pngs(np.full((1, 8, 8, 3), 255, np.uint8))[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of two images in each of two classes and three stages."""
    contents = iter(encode_pngs(np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)))
    for stage in STAGES:
        for name in ("cat", "dog"):
            (tmp_path / "images" / stage / name).mkdir(parents=True)
            for i in range(2):
                (tmp_path / "images" / stage / name / f"{i}.png").write_bytes(next(contents))
    return tmp_path / "images"


def prepared(root: Path, **options: object) -> FolderDataModule:
    module = FolderDataModule(**({"root": str(root), "image_size": None} | options))
    module.prepare_data()
    return module


def folder_of(root: Path) -> Path:
    return root.with_name("images_prepared")


def refuse(*args: object) -> None:
    raise AssertionError


def edit(path: Path, remove: str) -> None:
    """Remove the lines with a text from an index file."""
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if remove not in line))


def test_a_second_start_reads_no_images_of_several_sizes_and_folds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [{}, {"image_size": 4}, {"image_size": 4, "resize": "pad"}, {"folds": 2}]
    first = [prepared(root, **options) for options in ways]
    monkeypatch.setattr("datamodules.preparation.describe.scan", refuse)
    again = [prepared(root, **options) for options in ways]
    assert [(module.digest, module.mean) for module in again] == [(module.digest, module.mean) for module in first]
    assert set(load_description(folder_of(root)).pixels) == {"8", "4 crop", "4 pad", "8 fold 0 of 2"}


@pytest.mark.parametrize("stage", STAGES)
def test_the_digest_covers_the_pixels_of_every_stage(root: Path, stage: str) -> None:
    before = prepared(root)
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    assert prepared(copy).digest == before.digest
    (copy / stage / "cat/0.png").write_bytes(WHITE)
    assert prepared(copy).digest != before.digest


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_a_changed_image_is_never_served_stale(root: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    before = prepared(root)
    index = folder_of(root) / "train.txt"
    if change == "edited":
        (root / "train/cat/0.png").write_bytes(WHITE)
    elif change == "added":
        shutil.copy(root / "train/cat/0.png", root / "train/cat/new.png")
        index.write_text(f"{index.read_text()}train/cat/new.png 0\n")
    else:
        edit(index, "cat/0")
        (root / "train/cat/0.png").unlink()
    text = index.read_text()
    with caplog.at_level("INFO"):
        after = prepared(root)
    assert ("were edited" in caplog.text) == (change != "edited")
    assert after.mean != before.mean
    assert index.read_text() == text
    after.setup("fit")
    images, targets = after.datasets["train"].load(after.datasets["train"].targets * 0)
    assert len(after.datasets["train"]) == len(targets) == {"edited": 4, "added": 5, "removed": 3}[change]
    assert (images[0] == 255).all() == (change == "edited")


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_image_is_named_or_left_out(
    root: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(root)
    path = root / "train/dog/1.png"
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=r"dog/1\.png is .*--data\.on_bad_image skip") as error:
            prepared(root)
        assert "\n" not in str(error.value)
    with caplog.at_level("INFO"):
        skipped = prepared(root, on_bad_image="skip")
    assert "1 unreadable images are excluded" in caplog.text
    assert skipped.class_counts == [2, 1]
    skipped.setup("fit")
    assert len(skipped.datasets["train"]) == 3
    assert list(skipped.prepared.stats.unreadable) == ["train/dog/1.png"]
    with pytest.raises(DataError, match=r"dog/1\.png is "):
        prepared(root)


@pytest.mark.parametrize(
    ("pattern", "place"), [("val/*/*", "val of .*"), ("test/*/*", "test of .*"), ("train/dog/*", "dog")]
)
def test_stage_or_class_of_which_no_image_can_be_read_is_named(root: Path, pattern: str, place: str) -> None:
    for path in root.glob(pattern):
        path.write_bytes(b"")
    message = rf"^Expected readable images .* but got none of {place}\. .*First problem: .*0\.png is .* empty: 0 b"
    with pytest.raises(DataError, match=message) as error:
        prepared(root, on_bad_image="skip", image_size=8)
    assert "\n" not in str(error.value)


def test_a_class_without_images_in_one_stage_is_reported_each_time(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in root.glob("val/dog/*"):
        path.write_bytes(b"")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            assert prepared(root, on_bad_image="skip").prepared.counts["val"] == {"cat": 2, "dog": 0}
        assert f"val of {folder_of(root)} has no images of 1 of 2 classes (dog). val metrics do not" in caplog.text


def test_an_image_in_two_stages_is_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(root / "train/cat/0.png", root / "test/dog/1.png")
    with caplog.at_level("INFO"):
        assert prepared(root).prepared.stats.identical == [["train/cat/0.png", "test/dog/1.png"]]
    assert "1 images are in more than one of train, val and test (identical pixels at 8x8)" in caplog.text


def test_a_class_without_images_is_named(root: Path) -> None:
    prepared(root)
    edit(folder_of(root) / "train.txt", "dog")
    with pytest.raises(DataError, match=r"^Expected readable images .* but got none of dog\."):
        prepared(root)


def test_images_that_are_not_square_ask_for_a_size(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(encode_pngs(np.zeros((1, 8, 6, 3), np.uint8))[0])
    with pytest.raises(DataError, match=r"has 6x8 pixels.*--data\.image_size"):
        prepared(root)


@pytest.mark.parametrize("lost", ["dataset.json", "train.txt", "cache", "all but cache", "damaged", "no digest"])
def test_what_is_lost_is_written_again(root: Path, lost: str) -> None:
    before = prepared(root)
    description = folder_of(root) / "dataset.json"
    content = json.loads(description.read_text())
    for path in [*folder_of(root).iterdir()]:
        if path.name == lost or (lost == "all but cache" and path.name != "cache"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if lost == "damaged":
        description.write_text('{"class_names": ')
        assert load_description(folder_of(root)) is None
    if lost == "no digest":  # as written by an earlier version
        for pixels in content["pixels"].values():
            del pixels["digest"]
        description.write_text(json.dumps(content))
    assert prepared(root).digest == before.digest
    assert json.loads(description.read_text())["split"] == content["split"]
    assert len(list((folder_of(root) / "cache").iterdir())) == 1


def test_index_files_without_a_description_are_the_users(root: Path) -> None:
    before = prepared(root)
    (folder_of(root) / "dataset.json").unlink()
    edit(folder_of(root) / "train.txt", "dog/1")
    module = prepared(root)
    assert (module.prepared.split, module.class_counts) == ({"name": "given"}, [2, 1])
    (folder_of(root) / "val.txt").unlink()
    with pytest.raises(DataError, match=r"but got only train, test\. Restore the others, or split the images again"):
        prepared(root)
    assert prepared(root, overwrite_split=True).digest == before.digest


def test_index_files_of_this_project_are_recognised_without_a_description(root: Path) -> None:
    before = prepared(root, folds=2)
    (folder_of(root) / "dataset.json").unlink()
    after = prepared(root, folds=2)
    assert (after.prepared.split, after.digest) == (before.prepared.split, before.digest)


def test_the_description_counts_the_images_of_all_folds(root: Path) -> None:
    for options in ({}, {"folds": 2}, {"folds": 2, "fold": 1}):
        prepared(root, **options)
        counts = load_description(folder_of(root)).counts
        assert counts == {stage: {"cat": 2, "dog": 2} for stage in STAGES}


def test_without_an_image_size_it_is_that_of_the_first_readable_image(root: Path) -> None:
    (root / "test/cat/0.png").write_bytes(b"")
    assert prepared(root, on_bad_image="skip").image_size == 8
    with pytest.raises(DataError, match=r"test/cat/0\.png is not a readable image"):
        prepared(root)


def test_a_damaged_index_file_is_replaced_if_asked_for(root: Path) -> None:
    before = prepared(root)
    index = folder_of(root) / "train.txt"
    index.write_bytes(b"\xff")
    FolderDataModule(root=str(root))  # reads no index file yet
    with pytest.raises(DataError, match="Expected UTF-8"):
        prepared(root)
    assert prepared(root, overwrite_split=True).digest == before.digest
    assert index.with_name("train.txt.old").read_bytes() == b"\xff"


@pytest.mark.parametrize("options", [{}, {"overwrite_split": True, "fractions": (0.4, 0.3, 0.3)}])
def test_interrupted_before_any_renaming_the_next_preparation_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    results = []
    for number in range(10):
        root = tmp_path / str(number) / "images"
        for i, content in enumerate(encode_pngs(np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8))):
            (root / f"{i % 2}").mkdir(parents=True, exist_ok=True)
            (root / f"{i % 2}" / f"{i}.png").write_bytes(content)
        if options:
            prepared(root, fractions=(0.6, 0.2, 0.2))
        calls = 0

        def move(path: Path, target: Path, number: int = number) -> Path:
            nonlocal calls
            calls += 1
            if calls == number:  # 0: never
                raise KeyboardInterrupt
            os.replace(path, target)
            return target

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", move)
            patched.setattr(Path, "rename", move)
            try:
                prepared(root, **options)
            except KeyboardInterrupt:
                pass
            else:
                assert number == 0 or number > calls
        plain = shutil.copytree(root.parent, tmp_path / f"{number} without options") / "images"
        with suppress(DataError):  # or else the images are divided once, by the old or the new settings
            entries = prepared(plain).prepared.entries
            assert len({file for part in entries.values() for file, _ in part}) == sum(map(len, entries.values())) == 20
        module = prepared(root, **options)
        texts = {path.name: path.read_text() for path in sorted(folder_of(root).glob("*.txt*"))}
        results.append((module.digest, module.prepared.split, texts))
    assert all(result == results[0] for result in results)
