import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules import DataError, FolderDataModule
from datamodules.preparation.dataset_info import load_description
from datamodules.reading.png import encode_pngs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with index files of two images in each of two classes and three stages."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    contents = iter(encode_pngs(images))
    for stage in ("train", "val", "test"):
        lines = []
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / stage / name).mkdir(parents=True)
            for i in range(2):
                (tmp_path / stage / name / f"{i}.png").write_bytes(next(contents))
                lines.append(f"{stage}/{name}/{i}.png {label}\n")
        (tmp_path / f"{stage}.txt").write_text("".join(lines))
    return tmp_path


def data(root: Path, **options: object) -> FolderDataModule:
    return FolderDataModule(**({"root": str(root), "image_size": None} | options))


def prepared(root: Path, **options: object) -> FolderDataModule:
    module = data(root, **options)
    module.prepare_data()
    return module


def test_a_second_start_reads_no_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(root).description

    def refuse(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr("datamodules.preparation.store.scan", refuse)
    assert prepared(root).description == first


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_the_digest_covers_the_pixels_of_every_stage(
    root: Path, tmp_path_factory: pytest.TempPathFactory, stage: str
) -> None:
    before = prepared(root)
    copy = shutil.copytree(root, tmp_path_factory.mktemp("copy"), dirs_exist_ok=True)
    assert prepared(copy).digest == before.digest
    white = encode_pngs(np.full((1, 8, 8, 3), 255, np.uint8))[0]
    (copy / stage / "cat/0.png").write_bytes(white)
    after = prepared(copy)
    assert after.digest != before.digest
    assert (after.index_digest == before.index_digest) == (stage != "train")


@pytest.mark.parametrize("writable", [True, False])
def test_data_prepared_without_a_digest_of_pixels_is_read_once_more_if_it_can_be(
    root: Path, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(root)
    content = json.loads((root / "dataset.json").read_text())
    for pixels in content["pixels"].values():
        del pixels["digest"]
    (root / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setattr("datamodules.preparation.store.os.access", lambda path, mode: writable)
    again = prepared(root)
    assert again.index_digest == first.index_digest
    assert again.digest == (first.digest if writable else first.index_digest)


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_a_changed_image_is_never_served_stale(root: Path, change: str) -> None:
    before = prepared(root)
    if change == "edited":
        white = encode_pngs(np.full((1, 8, 8, 3), 255, np.uint8))[0]
        (root / "train/cat/0.png").write_bytes(white)
    elif change == "added":
        shutil.copy(root / "train/cat/0.png", root / "train/cat/new.png")
        with (root / "train.txt").open("a") as file:
            file.write("train/cat/new.png 0\n")
    else:
        lines = (root / "train.txt").read_text().splitlines(keepends=True)
        (root / "train.txt").write_text("".join(lines[1:]))
        (root / "train/cat/0.png").unlink()
    after = prepared(root)
    assert after.mean != before.mean
    after.setup("fit")
    images, targets = after.datasets["train"].load(after.datasets["train"].targets * 0)
    count = {"edited": 4, "added": 5, "removed": 3}[change]
    assert len(after.datasets["train"]) == len(targets) == count
    if change == "edited":
        assert (images[0] == 255).all()


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_unreadable_image_is_named_with_its_line_or_left_out(
    root: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / "train/dog/1.png"
    path.unlink() if content is None else path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=r"dog/1\.png.*train\.txt:4\).*--data\.on_bad_image skip") as error:
            prepared(root)
        assert "\n" not in str(error.value)
    with caplog.at_level("INFO"):
        skipped = prepared(root, on_bad_image="skip")
    assert "1 unreadable images are excluded" in caplog.text
    assert "dog/1.png" in caplog.text
    assert skipped.class_counts == [2, 1]
    skipped.setup("fit")
    assert len(skipped.datasets["train"]) == 3
    assert list(skipped.description.pixels["8"].unreadable) == ["train/dog/1.png"]
    with pytest.raises(DataError, match=r"train\.txt:4\)"):
        prepared(root)


@pytest.mark.parametrize("options", [{"on_bad_image": "skip"}, {"image_size": 8, "on_bad_image": "error"}])
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train/*/*", r"in .*train\.txt, but none of 4 can be read\. First problem: .*train/cat/0\.png .* empty: 0 b"),
        ("val/*/*", r"in .*val\.txt, but none of 4 can be read\. First problem: .*val/cat/0\.png is not a readable"),
        ("test/*/*", r"in .*test\.txt, but none of 4 can be read\. First problem: .*test/cat/0\.png is not a readable"),
        ("train/dog/*", r"of dog in .*train\.txt, but none of 2 can be read\. First problem: .*train/dog/0\.png is"),
    ],
)
def test_stage_or_class_of_which_no_image_can_be_read_is_named_with_the_first(
    root: Path, pattern: str, message: str, options: dict
) -> None:
    for path in root.glob(pattern):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"^Expected readable images {message}") as error:
        prepared(root, **options)
    assert "\n" not in str(error.value)


def test_without_any_readable_image_the_first_is_named(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of 12 can be read\. First problem: .*test/cat/0\.png is missing"):
        prepared(root, on_bad_image="skip")


def test_class_without_readable_images_in_one_stage_is_reported_each_time(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in root.glob("val/dog/*"):
        path.write_bytes(b"")
    lines = (root / "test.txt").read_text().splitlines(keepends=True)
    (root / "test.txt").write_text("".join(line for line in lines if "cat" not in line))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            assert prepared(root, on_bad_image="skip").description.counts["val"] == {"cat": 2, "dog": 0}
        assert (
            f"{root}/val.txt has no images of 1 of 2 classes (dog), because 2 images cannot be read, for example "
            "val/dog/0.png. val metrics do not include them."
        ) in caplog.text
        assert f"{root}/test.txt has no images of 1 of 2 classes (cat). test metrics do not" in caplog.text


def test_an_image_in_two_stages_is_reported(root: Path) -> None:
    shutil.copy(root / "train/cat/0.png", root / "test/dog/1.png")
    assert prepared(root).description.pixels["8"].identical == [["train/cat/0.png", "test/dog/1.png"]]


def test_a_class_without_training_images_is_named(root: Path) -> None:
    (root / "train.txt").write_text("train/cat/0.png 0\ntrain/cat/1.png 0\n")
    with pytest.raises(DataError, match=r"train\.txt lists none of dog"):
        prepared(root)


def test_a_single_class_is_refused(root: Path) -> None:
    for stage in ("train", "val", "test"):
        (root / f"{stage}.txt").write_text(f"{stage}/cat/0.png 0\n")
    with pytest.raises(DataError, match=r"at least two classes.*but got cat"):
        prepared(root)


@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_an_empty_stage_is_named(root: Path, stage: str) -> None:
    (root / f"{stage}.txt").write_text("\n")
    with pytest.raises(DataError, match=rf"Expected images in .*{stage}\.txt, but got none"):
        prepared(root)


def test_images_that_are_not_square_ask_for_a_size(root: Path) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(encode_pngs(np.zeros((1, 8, 6, 3), np.uint8))[0])
    with pytest.raises(DataError, match=r"has 6x8 pixels.*--data\.image_size"):
        prepared(root)


def test_a_damaged_description_is_written_again(root: Path) -> None:
    before = prepared(root).description
    (root / "dataset.json").write_text('{"class_names": ')
    assert load_description(root) is None
    assert prepared(root).description == before


def test_a_description_of_an_earlier_version_is_read_and_its_empty_channel_not_divided_by_0(root: Path) -> None:
    before = prepared(root).description
    content = json.loads((root / "dataset.json").read_text())
    (pixels,) = content["pixels"].values()
    del pixels["losses"]
    pixels["std"][0] = 0.0
    (root / "dataset.json").write_text(json.dumps(content))
    again = prepared(root)
    assert again.std[0] == 1.0
    assert again.std[1:] == next(iter(before.pixels.values())).std[1:]
    assert json.loads((root / "dataset.json").read_text()) == content
