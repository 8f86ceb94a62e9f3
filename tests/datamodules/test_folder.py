import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from callbacks.confusion_matrix import draw_confusion_matrix
from datamodules import DataError, FolderDataModule
from datamodules.preparation.index import read_index
from project.__main__ import main


def save(path: Path, side: int = 12) -> None:
    """Write a random image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(random.Random(str(path)).getrandbits(32))
    Image.fromarray(numbers.integers(0, 256, (side, side + 5, 3), np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of ten photos in each of two classes."""
    for name in ("dogs", "my cats"):
        for i in range(10):
            save(tmp_path / "photos" / name / f"photo {i}.{('jpg', 'png', 'bmp')[i % 3]}")
    return tmp_path / "photos"


def write_index_elsewhere(photos: Path) -> Path:
    """Write index files with paths relative to the parent of ``photos``, and return their folder."""
    index = photos.parent / "index"
    index.mkdir()
    files = sorted(photos.rglob("photo*"))
    lines = [f"photos/{path.relative_to(photos).as_posix()} {'cats' in path.parent.name:d}\n" for path in files]
    for start, stage in enumerate(("train", "val", "test")):
        (index / f"{stage}.txt").write_text("".join(lines[start::3]))
    return index


def data(root: Path, **options: object) -> FolderDataModule:
    module = FolderDataModule(root=str(root), num_workers=0, **options)
    module.prepare_data()
    return module


def test_twenty_photos_in_two_classes_become_batches(photos: Path) -> None:
    module = data(photos)
    assert module.class_names == ["dogs", "my cats"]
    assert module.description.counts == {
        "train": {"dogs": 8, "my cats": 8},
        "val": {"dogs": 1, "my cats": 1},
        "test": {"dogs": 1, "my cats": 1},
    }
    module.setup("fit")
    images, targets = next(iter(module.train_dataloader()))
    assert images.shape == (16, 3, 32, 32)
    assert sorted(targets.tolist()) == [0] * 8 + [1] * 8


def test_hidden_files_other_files_and_own_folders_are_passed_over(photos: Path) -> None:
    for name in (".DS_Store", "notes.txt", ".hidden.png"):
        (photos / "dogs" / name).write_bytes(b"x")
    save(photos / ".thumbnails" / "a.png")
    save(photos / "dogs" / "puppies" / "deep.png")
    module = data(photos)
    data(photos, folds=3)
    assert data(photos, overwrite_split=True).class_names == ["dogs", "my cats"]
    assert sum(sum(counts.values()) for counts in module.description.counts.values()) == 21


def test_stage_folders_are_the_split(photos: Path, tmp_path: Path) -> None:
    for stage, count in (("train", 6), ("valid", 2), ("test", 3)):
        for name in ("a", "b"):
            for i in range(count):
                save(tmp_path / "split" / stage / name / f"{i}.png")
    module = data(tmp_path / "split")
    assert {stage: set(counts.values()) for stage, counts in module.description.counts.items()} == {
        "train": {6},
        "val": {2},
        "test": {3},
    }
    assert read_index(tmp_path / "split" / "val.txt")[0] == ("valid/a/0.png", 0)
    assert module.class_names == ["a", "b"]


def test_a_missing_stage_folder_is_taken_from_train(tmp_path: Path) -> None:
    for stage in ("train", "test"):
        for name in ("a", "b"):
            for i in range(9):
                save(tmp_path / stage / name / f"{i}.png")
    counts = data(tmp_path).description.counts
    assert {stage: set(count.values()) for stage, count in counts.items()} == {"train": {8}, "val": {1}, "test": {9}}


def test_train_without_other_stages_is_split_and_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(10):
            save(tmp_path / "alone" / "train" / name / f"{i}.png")
            save(tmp_path / "vehicles" / ("train" if name == "a" else "ship") / f"{i}.png")
    assert data(tmp_path / "alone").class_counts == [8, 8]
    assert data(tmp_path / "vehicles").class_names == ["ship", "train"]


def test_a_class_that_training_lacks_is_named(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "val/c"):
        save(tmp_path / place / "0.png")
    with pytest.raises(DataError, match=r"\(a, b\).*but got c"):
        data(tmp_path)


def test_given_index_files_are_used_as_they_are(tmp_path: Path) -> None:
    texts = {}
    for stage in ("train", "val", "test"):
        for label in (0, 1):
            save(tmp_path / "pictures" / f"{stage} {label}.png")
        texts[stage] = f"pictures/{stage} 1.png 1\npictures/{stage} 0.png 0\n"
        (tmp_path / f"{stage}.txt").write_text(texts[stage])
    (tmp_path / "classes.txt").write_text("night\nday\n")
    module = data(tmp_path)
    assert module.class_names == ["night", "day"]
    assert module.description.split == {"name": "given"}
    assert {stage: (tmp_path / f"{stage}.txt").read_text() for stage in texts} == texts
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "dataset.json").unlink()
    assert data(tmp_path).class_names == ["0", "1"]


def test_paths_may_be_relative_to_where_the_command_was_started(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_index_elsewhere(photos)
    monkeypatch.chdir(tmp_path)
    module = data(index)
    assert module.class_names == ["dogs", "my cats"]
    module.setup("fit")
    assert next(iter(module.val_dataloader()))[0].shape[1:] == (3, 32, 32)


def test_an_incomplete_set_of_given_index_files_is_named(photos: Path) -> None:
    (photos / "train.txt").write_text("dogs/photo 0.jpg 0\nmy cats/photo 0.jpg 1\n")
    with pytest.raises(DataError, match=r"val\.txt is missing.*--data\.overwrite_split true"):
        data(photos)


def test_other_fractions_are_refused_until_they_are_asked_for_and_nothing_is_lost(photos: Path) -> None:
    data(photos)
    before = (photos / "train.txt").read_text()
    with pytest.raises(DataError, match=r"0\.6.*--data\.overwrite_split true"):
        data(photos, fractions=(0.6, 0.2, 0.2))
    assert (photos / "train.txt").read_text() == before
    module = data(photos, fractions=(0.6, 0.2, 0.2), overwrite_split=True)
    assert module.class_counts == [6, 6]
    assert (photos / "train.txt.old").read_text() == before


def test_an_existing_split_is_used_unless_another_is_requested(photos: Path) -> None:
    data(photos, fractions=(0.6, 0.2, 0.2), split_seed=1)
    data(photos, fractions=(0.4, 0.3, 0.3), folds=2)
    before = (photos / "train.txt").read_text()
    assert data(photos).class_counts == [6, 6]
    assert data(photos, fractions=(0.6, 0.2, 0.2)).class_counts == [6, 6]
    assert data(photos, folds=2).fractions == [0.4, 0.3, 0.3]
    for others in ({"fractions": (0.8, 0.1, 0.1)}, {"split_seed": 666}):
        with pytest.raises(DataError, match=r"but got .*'seed': 1\}\. .*--data\.overwrite_split true"):
            data(photos, **others)
    assert (photos / "train.txt").read_text() == before
    save(photos / "dogs" / "new.png")
    assert data(photos, overwrite_split=True).description.split == {"fractions": [0.6, 0.2, 0.2], "seed": 1}


def test_split_of_another_rounding_stays_as_it_is(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("datamodules.folder.divide", lambda entries, *_: [entries[6:], entries[:4], entries[4:6]])
        before = data(photos).description
    with caplog.at_level("INFO"):
        for options in ({}, {"fractions": (0.8, 0.1, 0.1)}, {"split_seed": 666}):
            assert data(photos, **options).description == before
        data(photos, folds=2)
    assert "edited" not in caplog.text
    assert read_index(photos / "folds_2/0/test.txt") == read_index(photos / "test.txt")
    assert data(photos, overwrite_split=True).class_counts == [8, 8]


@pytest.mark.parametrize("folds", [None, 3])
def test_few_photos_of_many_classes_are_divided_as_a_whole(
    tmp_path: Path, folds: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    for name in range(20):
        for i in range(6):
            save(tmp_path / f"{name:02}" / f"{i}.png")
    with caplog.at_level("INFO"):
        counts = data(tmp_path, folds=folds).description.counts
    assert [sum(of_class.values()) for of_class in counts.values()] == ([96, 12, 12] if folds is None else [72, 36, 12])
    assert min(counts["train"].values()) > 0
    without = [name for name, count in counts["test"].items() if count == 0]
    folder = tmp_path if folds is None else tmp_path / "folds_3/0"
    assert f"{folder}/test.txt has no images of 8 of 20 classes ({', '.join(without[:5])}, ...)" in caplog.text


def test_list_of_classes_does_not_make_an_unfinished_preparation_an_edited_one(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "classes.txt").write_text("of another program\n")
    (photos / "dogs" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png"):
        data(photos)
    (photos / "dogs" / "bad.png").unlink()
    with caplog.at_level("INFO"):
        assert data(photos, fractions=(0.6, 0.2, 0.2)).class_counts == [6, 6]
    assert "were edited" not in caplog.text


def test_new_photos_are_reported(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(photos)
    save(photos / "dogs" / "new.png")
    with caplog.at_level("INFO"):
        assert data(photos).class_counts == [8, 8]
    assert "1 images in" in caplog.text
    assert "dogs/new.png. Split all images again with --data.overwrite_split true" in caplog.text


def test_images_may_be_in_a_read_only_folder(photos: Path, tmp_path: Path) -> None:
    before = sorted(os.listdir(photos))
    module = data(tmp_path / "work", images=str(photos))
    module.setup("fit")
    assert len(next(iter(module.train_dataloader()))[0]) == 16
    assert sorted(os.listdir(photos)) == before


def test_folds_divide_the_photos_by_class(photos: Path) -> None:
    held_out = []
    for fold in range(3):
        module = data(photos, folds=3, fold=fold)
        held_out += [path for path, _ in read_index(photos / f"folds_3/{fold}/val.txt")]
        assert module.description.counts["test"] == {"dogs": 1, "my cats": 1}
    assert len(set(held_out)) == len(held_out) == 18


def test_overwriting_the_split_includes_new_photos_and_classes(photos: Path) -> None:
    data(photos)
    for i in range(10):
        save(photos / "eels" / f"{i}.png")
    assert data(photos).class_names == ["dogs", "my cats"]
    module = data(photos, overwrite_split=True)
    assert module.class_names == ["dogs", "eels", "my cats"]
    assert module.class_counts == [8, 8, 8]
    before = sorted(os.listdir(photos))
    assert data(photos, overwrite_split=True).description == module.description
    assert sorted(os.listdir(photos)) == before


def test_a_list_of_classes_does_not_rename_folders(photos: Path) -> None:
    (photos / "classes.txt").write_text("my cats\ndogs\n")
    assert data(photos).class_names == ["dogs", "my cats"]


def test_links_are_followed_once(photos: Path) -> None:
    (photos / "dogs" / "loop").symlink_to(photos / "dogs", target_is_directory=True)
    (photos / "linked").symlink_to(photos.parent / "elsewhere", target_is_directory=True)
    for i in range(10):
        save(photos.parent / "elsewhere" / f"{i}.png")
    assert data(photos).class_counts == [8, 8, 8]


@pytest.mark.parametrize("name", ["a\nb.png", " a.png", "a\\b.png", os.fsdecode(b"\xff.png")])
def test_a_file_name_that_no_index_file_can_hold_is_named(photos: Path, name: str) -> None:
    save(photos / "dogs" / "plain.png")
    os.rename(photos / "dogs" / "plain.png", photos / "dogs" / name)
    os.rename(photos / "dogs", photos / " dogs") if name.startswith(" ") else None
    with pytest.raises(DataError, match=r"Rename the file\.$") as error:
        data(photos)
    assert repr(name)[1:-1] in str(error.value) or name.startswith(" ")


def test_one_missing_image_does_not_move_the_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_index_elsewhere(photos)
    min(photos.rglob("photo*")).unlink()  # the first in train.txt
    monkeypatch.chdir(tmp_path)
    assert sum(data(index, on_bad_image="skip").class_counts) == 6


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("$x_^$", "[red]"):
        for i in range(10):
            save(tmp_path / "odd" / name / f"{i}.png")
    options = ["--data=datamodules.FolderDataModule", f"--data.root={tmp_path / 'odd'}"]
    main(["prepare", *options])
    assert "[red]" in capsys.readouterr().out
    main(["preview", *options, "--images=2", "--epochs=1"])
    draw_confusion_matrix(np.eye(2, dtype=int), ["$x_^$", "[red]"]).savefig(tmp_path / "matrix.png")


def test_index_files_are_never_lost(photos: Path) -> None:
    data(photos)
    texts = [(photos / "train.txt").read_text()]
    for share in (0.6, 0.4):
        data(photos, fractions=(share, 0.2, 0.8 - share), overwrite_split=True)
        texts.append((photos / "train.txt").read_text())
    assert [(photos / name).read_text() for name in ("train.txt.old", "train.txt.old1", "train.txt")] == texts


def test_the_cause_of_a_failed_first_preparation_can_be_fixed(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "dogs" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png"):
        data(photos)
    (photos / "dogs" / "bad.png").unlink()
    with caplog.at_level("INFO"):
        module = data(photos, fractions=(0.6, 0.2, 0.2))
    assert module.class_counts == [6, 6]
    assert module.description.split == {"fractions": [0.6, 0.2, 0.2], "seed": 666}
    assert "were edited" not in caplog.text


def test_an_edit_after_a_first_preparation_that_stopped_is_kept(photos: Path) -> None:
    (photos / "dogs" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png"):
        data(photos, fractions=(0.8, 0.1, 0.1))
    for stage in ("train", "val", "test"):
        lines = (photos / f"{stage}.txt").read_text().splitlines(keepends=True)
        (photos / f"{stage}.txt").write_text("".join(line for line in lines if "bad" not in line))
    before = (photos / "train.txt").read_text()
    assert data(photos).class_names == ["dogs", "my cats"]
    assert (photos / "train.txt").read_text() == before


def test_given_index_files_keep_every_byte(photos: Path) -> None:
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("photo*"))
    texts = {}
    for start, stage in enumerate(("train", "val", "test")):
        lines = [f"{file}\t{'cats' in file:d}\r\n" for file in files[start::3]]
        texts[stage] = b"\xef\xbb\xbf" + "".join(lines).encode()
        (photos / f"{stage}.txt").write_bytes(texts[stage])
    assert data(photos).description.split == {"name": "given"}
    assert {stage: (photos / f"{stage}.txt").read_bytes() for stage in texts} == texts
    data(photos)


def test_folds_stay_disjoint_when_photos_are_added_in_between(photos: Path) -> None:
    data(photos, folds=3, fold=0)
    for i in range(5):
        save(photos / "dogs" / f"new {i}.png")
    held_out = []
    for fold in range(3):
        data(photos, folds=3, fold=fold)
        held_out += [path for path, _ in read_index(photos / f"folds_3/{fold}/val.txt")]
    assert len(set(held_out)) == len(held_out) == 18


def test_folds_are_made_of_the_folders_own_split(photos: Path) -> None:
    data(photos)
    test = (photos / "test.txt").read_text()
    lines = (photos / "train.txt").read_text().splitlines(keepends=True)
    (photos / "train.txt").write_text("".join(lines[1:]))
    data(photos)
    data(photos, folds=2, fold=1)
    assert (photos / "folds_2/1/test.txt").read_text() == test
    assert len(read_index(photos / "folds_2/0/val.txt")) + len(read_index(photos / "folds_2/1/val.txt")) == 17


@pytest.mark.parametrize("folders", [("training_set/training_set", "test_set/test_set"), ("all/Train", "all/Test")])
def test_stage_folders_within_others_are_the_split(tmp_path: Path, folders: tuple[str, str]) -> None:
    for folder, count in zip(folders, (9, 4), strict=True):
        for name in ("cats", "dogs"):
            for i in range(count):
                save(tmp_path / folder / name / "2021" / f"{i}.png")
    module = data(tmp_path)
    assert module.class_names == ["cats", "dogs"]
    assert {stage: set(counts.values()) for stage, counts in module.description.counts.items()} == {
        "train": {8},
        "val": {1},
        "test": {4},
    }
    assert {file.rpartition("/2021/")[0] for file, _ in read_index(tmp_path / "test.txt")} == {
        f"{folders[1]}/{name}" for name in ("cats", "dogs")
    }


def test_images_without_a_class_in_train_and_test_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("train", "test"):
        for i in range(10):
            save(tmp_path / "flat" / stage / f"cat.{i}.png")
    with pytest.raises(SystemExit):
        main(["prepare", "--data=datamodules.FolderDataModule", f"--data.root={tmp_path / 'flat'}"])
    message = capsys.readouterr().err.strip()
    train = tmp_path / "flat" / "train"
    assert message == (
        f"error: Expected one folder of images per class in {train}, such as {train}/cats, but it contains no folder."
    )
    assert not (tmp_path / "flat" / "train.txt").exists()


def test_split_whose_folders_would_be_refused_stays_and_is_warned_of(tmp_path: Path) -> None:
    for stage in ("train", "test"):
        for i in range(10):
            save(tmp_path / stage / f"{i}.png")
    for stage, rows in (("train", range(8)), ("val", [8]), ("test", [9])):
        lines = [f"{folder}/{i}.png {label}\n" for label, folder in enumerate(("test", "train")) for i in rows]
        (tmp_path / f"{stage}.txt").write_text("".join(lines))
    module = data(tmp_path)
    known = json.loads((tmp_path / "dataset.json").read_text())
    known["split"] = {"fractions": [0.8, 0.1, 0.1], "seed": 666}  # as split by an earlier version
    (tmp_path / "dataset.json").write_text(json.dumps(known))
    with pytest.warns(
        UserWarning, match=r"could not be created again\. Expected one folder of images per class in .*train"
    ):
        assert data(tmp_path).class_counts == module.class_counts == [8, 8]


@pytest.mark.parametrize("overwrite_split", [False, True])
def test_test_images_without_a_class_are_left_to_predict(
    tmp_path: Path, overwrite_split: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        for i in range(9):
            save(tmp_path / "train" / name / f"{i}.png")
            save(tmp_path / "val" / name / f"{i}.png")
            save(tmp_path / "test" / f"{name}{i}.png")
    with caplog.at_level("INFO"):
        counts = data(tmp_path, overwrite_split=overwrite_split).description.counts
    assert counts == {"train": {"a": 8, "b": 8}, "val": {"a": 9, "b": 9}, "test": {"a": 1, "b": 1}}
    assert "18 in no class folder; `predict` can classify them" in caplog.text
    assert "overwrite_split" not in caplog.text


def test_new_photos_are_included_in_folds_as_advised(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(photos, folds=3)
    for i in range(10):
        save(photos / "dogs" / f"new {i}.png")
    with caplog.at_level("INFO"):
        data(photos, folds=3)
    advice = (
        "Split all images again with --data.overwrite_split true (without --data.folds; then delete "
        f"{photos / 'folds_3'})."
    )
    assert advice in caplog.text
    data(photos, overwrite_split=True)
    shutil.rmtree(photos / "folds_3")
    caplog.clear()
    with caplog.at_level("INFO"):
        module = data(photos, folds=3)
    assert module.description.counts["test"] == {"dogs": 2, "my cats": 1}
    assert sum(module.class_counts) + sum(module.description.counts["val"].values()) == 27
    assert "in no index file" not in caplog.text


def test_thumbnails_of_a_file_server_are_counted_and_not_trained_on(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(10):
        save(photos / "dogs" / "@eaDir" / f"photo {i}.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    (photos / "lost+found").mkdir()
    with caplog.at_level("INFO"):
        assert data(photos).class_counts == [8, 8]
    first = r"dogs/@eaDir/photo \d\.jpg/SYNOPHOTO_THUMB_M\.jpg \(10 in a folder of another program\)"
    assert re.search(rf"10 files in {photos} are ignored, for example {first}\.", caplog.text)


def test_stage_folders_may_be_written_in_capitals(tmp_path: Path) -> None:
    for stage in ("Training", "Testing"):
        for name in ("a", "b"):
            for i in range(10):
                save(tmp_path / stage / name / f"{i}.png")
    module = data(tmp_path)
    assert module.class_names == ["a", "b"]
    assert module.description.counts["test"] == {"a": 10, "b": 10}


def test_classes_of_nested_folders_are_named_by_the_outermost(tmp_path: Path) -> None:
    for name, year in (("cat", "2021"), ("dog", "2022")):
        for i in range(10):
            save(tmp_path / name / year / f"{i}.png")
    assert data(tmp_path).class_names == ["cat", "dog"]


def test_a_changed_list_of_classes_is_noticed_and_a_wrong_one_refused(tmp_path: Path) -> None:
    for stage in ("train", "val", "test"):
        for label in (0, 1):
            save(tmp_path / "pictures" / f"{stage} {label}.png")
        (tmp_path / f"{stage}.txt").write_text(f"pictures/{stage} 1.png 1\npictures/{stage} 0.png 0\n")
    assert data(tmp_path).class_names == ["0", "1"]
    (tmp_path / "classes.txt").write_text("night\nday\n")
    assert data(tmp_path).class_names == ["night", "day"]
    (tmp_path / "classes.txt").write_text("day\nday\n")
    with pytest.raises(DataError, match=r"each name once.*'day'"):
        data(tmp_path)
    (tmp_path / "classes.txt").write_bytes("Säge\nday\n".encode("latin1"))
    with pytest.raises(DataError, match=r"Expected UTF-8 in .*classes\.txt, but got .*0xe4.*Save it as UTF-8\."):
        data(tmp_path)


def test_files_that_are_passed_over_are_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "dogs" / "movie.mp4").write_bytes(b"x")
    save(photos / "loose.png")
    with caplog.at_level("INFO"):
        data(photos)
    assert f"2 files in {photos} are ignored, for example " in caplog.text


def test_overwriting_the_split_is_not_repeated_with_the_config_of_the_run(photos: Path, tmp_path: Path) -> None:
    data(photos)
    options = [f"--data.root={photos}", "--data.fractions=[0.6,0.2,0.2]", "--data.overwrite_split=true"]
    fit = main(
        [
            *("fit", "--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", *options),
            *("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", f"--runs_dir={tmp_path / 'runs'}"),
        ]
    )
    assert yaml.safe_load((fit.run_dir / "config.yaml").read_text())["data"]["init_args"]["overwrite_split"] is False
    main(["prepare", f"--config={fit.run_dir / 'config.yaml'}"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text(""), "is a file"),
        (lambda root: root.mkdir(), "contains no folder"),
        (lambda root: save(root / "loose.png"), "contains no folder"),
        (lambda root: (root / "empty").mkdir(parents=True), "empty, but got none"),
        (
            lambda root: [(root / "a").mkdir(parents=True), (root / "a/0.heif.txt").touch()],
            r"example .*a/0\.heif\.txt\.",
        ),
        (
            lambda root: [save(root / f"{stage}/a/0.png") for stage in ("val", "test")],
            "Expected .*train, with one folder",
        ),
        (lambda root: [save(root / "a" / f"{i}.png") for i in range(20)], "at least two classes.*but got a"),
        (lambda root: [save(root / name / "0.png") for name in "ab"], r"leaves none for val"),
    ],
)
def test_folders_that_cannot_be_trained_on_are_rejected_with_a_reason(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=message) as error:
        data(tmp_path / "photos")
    assert "\n" not in str(error.value)


def test_photos_train_and_are_tested_by_one_command_each(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fit = main(
        [
            *("fit", "--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={photos}"),
            *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"),
            f"--runs_dir={tmp_path / 'runs'}",
        ]
    )
    assert fit.trainer.global_step == 2
    assert f"2 classes (dogs, my cats) in {photos}; images: 16 train, 2 val, 2 test." in caplog.messages
    tested = main(["test", "--run", str(fit.run_dir)])
    assert {"test/acc", "test/acc/dogs", "test/acc/my cats"} <= tested.trainer.callback_metrics.keys()


def test_what_decoding_loses_is_reported_once_and_by_prepare(
    photos: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(photos.rglob("*.png"))
    for file in files:
        picture = Image.open(file)
        picture.putalpha(100)
        picture.save(file)
    first = files[0].relative_to(photos)
    note = f"{len(files)} images have transparent parts (for example {first}): these are composited over white."
    with caplog.at_level("INFO"):
        data(photos)
    assert [record.getMessage() for record in caplog.records].count(note) == 1
    caplog.clear()
    with caplog.at_level("INFO"):
        data(photos).setup("fit")
    assert note not in caplog.text
    main(["prepare", "--data=datamodules.FolderDataModule", f"--data.root={photos}"])
    assert note in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("empty", ["R", "GB", "RGB"])
def test_images_with_empty_channels_train_and_the_channels_are_named(
    photos: Path,
    tmp_path: Path,
    empty: str,
    normalize: bool,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in photos.rglob("*.*"):
        pixels = np.array(Image.open(file).convert("RGB"))
        Image.fromarray(pixels * np.uint8([name not in empty for name in "RGB"])).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    folder = ["--data=datamodules.FolderDataModule", f"--data.root={photos}"]
    options = [f"--data.normalize={normalize}", "--callbacks=false", "--trainer.max_epochs=1", "--report=false"]
    with caplog.at_level("INFO"):
        cli = main(["fit", "--config=configs/lenet.yaml", *folder, *options, f"--runs_dir={tmp_path / 'runs'}"])
    assert cli.trainer.callback_metrics["val/loss"].isfinite()
    std = torch.load(cli.run_dir / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]["std"]
    assert [value == 1 for value in std] == [name in empty or not normalize for name in "RGB"]
    note = f"no contrast in channel {', '.join(empty)}: it is not scaled"
    assert caplog.text.count(note) == 1
    main(["prepare", *folder])
    assert note in capsys.readouterr().out
