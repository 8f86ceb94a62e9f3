import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from datamodules import DataError, FolderDataModule
from datamodules.folder import name_labels
from datamodules.preparation.index import STAGES
from project.__main__ import main


def save(path: Path, side: int = 12) -> None:
    """Write a random image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(random.Random(str(path)).getrandbits(32))
    Image.fromarray(numbers.integers(0, 256, (side, side + 5, 3), np.uint8)).save(path)


def save_many(root: Path, counts: dict[str, int]) -> Path:
    """Write a number of images in each folder, and return the root."""
    for folder, count in counts.items():
        for i in range(count):
            save(root / folder / f"{i}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of ten photos in each of two classes."""
    for name in ("dogs", "my cats"):
        for i in range(10):
            save(tmp_path / "photos" / name / f"photo {i}.{('jpg', 'png', 'bmp')[i % 3]}")
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Path:
    """Return ``photos`` with index files."""
    files = sorted(photos.rglob("photo*"))
    lines = [f"{path.relative_to(photos).as_posix()} {'cats' in path.parent.name:d}\n" for path in files]
    for start, stage in enumerate(STAGES):
        (photos / f"{stage}.txt").write_text("".join(lines[start::3]))
    return photos


def data(root: Path, **options: object) -> FolderDataModule:
    module = FolderDataModule(root=str(root), num_workers=0, **options)
    module.prepare_data()
    return module


def sums(module: FolderDataModule) -> list[int]:
    """Return the number of images of train, val and test."""
    return [sum(counts.values()) for counts in module.prepared.counts.values()]


# The folder


def test_twenty_photos_in_two_classes_become_batches_and_nothing_is_written_among_them(photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    module = data(photos)
    assert module.class_names == ["dogs", "my cats"]
    assert [set(counts.values()) for counts in module.prepared.counts.values()] == [{8}, {1}, {1}]
    module.setup("fit")
    images, targets = next(iter(module.train_dataloader()))
    assert images.shape == (16, 3, 32, 32)
    assert sorted(targets.tolist()) == [0] * 8 + [1] * 8
    assert sorted(photos.rglob("*")) == before
    folder = photos.with_name("photos_prepared")
    assert {path.name for path in folder.iterdir()} == {f"{stage}.txt" for stage in STAGES} | {
        *("classes.txt", "dataset.json", "cache", ".lock")
    }


def test_the_data_folder_may_be_chosen_and_hold_index_files(index: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for stage in STAGES:
        (index / f"{stage}.txt").rename(tmp_path / "work" / f"{stage}.txt")
    module = data(tmp_path / "work", images=str(index))
    assert (module.class_names, sum(module.class_counts)) == (["dogs", "my cats"], 7)
    assert (tmp_path / "work" / "dataset.json").is_file()
    assert not index.with_name("photos_prepared").exists()
    data(index, images=f"{index.parent}/photos/../photos")
    assert index.with_name("photos_prepared").exists()


def test_images_may_be_in_a_read_only_folder(photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    for folder in (photos, *photos.iterdir()):
        folder.chmod(0o555)
    assert data(photos).class_counts == [8, 8]
    assert sorted(photos.rglob("*")) == before  # root may write to read-only folders
    for folder in (photos, *photos.iterdir()):
        folder.chmod(0o755)


def test_links_are_followed_once(photos: Path) -> None:
    (photos / "dogs" / "loop").symlink_to(photos / "dogs", target_is_directory=True)
    (photos / "linked").symlink_to(photos.parent / "elsewhere", target_is_directory=True)
    save_many(photos.parent, {"elsewhere": 10})
    assert data(photos).class_counts == [8, 8, 8]


def test_hidden_files_other_files_and_folders_of_other_programs_are_passed_over(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".DS_Store", "notes.txt", ".hidden.png", "movie.mp4"):
        (photos / "dogs" / name).write_bytes(b"x")
    for place in (".thumbnails/a.png", "dogs/@eaDir/photo 0.jpg/THUMB.jpg", "dogs/puppies/deep.png", "loose.png"):
        save(photos / place)
    with caplog.at_level("INFO"):
        module = data(photos)
    assert module.class_names == ["dogs", "my cats"]
    assert sum(sums(module)) == 21
    assert f"1 files in {photos} are not used, for example loose.png: they have no label" in caplog.text
    assert f"1 files in {photos} are not used, for example dogs/movie.mp4: they are not images" in caplog.text


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train/a": 6, "train/b": 6, "valid/a": 2, "valid/b": 2, "test/a": 3, "test/b": 3}, [12, 4, 6]),
        ({"train/a": 9, "train/b": 9, "test/a": 9, "test/b": 9}, [16, 2, 18]),
        ({"all/Train/a/2021": 9, "all/Train/b/2022": 9, "all/Test/a/2021": 4, "all/Test/b/2021": 4}, [16, 2, 8]),
        ({"train/a": 9, "train/b": 9, "val/a": 9, "val/b": 9, "test": 9}, [16, 18, 2]),
    ],
)
def test_folders_of_stages_are_the_split(tmp_path: Path, folders: dict[str, int], expected: list[int]) -> None:
    module = data(save_many(tmp_path / "images", folders))
    assert module.class_names == ["a", "b"]
    assert sums(module) == expected


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({".": 1}, "contains no folder"),
        ({"a": 20}, "at least two classes.*but got a"),
        ({"a": 1, "b": 1}, r"but got none of val of .*photos_prepared"),
        (None, "photos does not exist"),
    ],
)
def test_folders_that_cannot_be_trained_on_are_rejected_and_nothing_is_split(
    tmp_path: Path, folders: dict[str, int] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        data(save_many(tmp_path / "photos", folders or {}))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.txt"))
    assert folders or not list(tmp_path.iterdir())


def test_a_file_name_that_no_index_file_can_hold_is_named(photos: Path) -> None:
    (photos / "dogs/photo 3.jpg").rename(photos / "dogs/a\nb.jpg")
    with pytest.raises(DataError, match=r"dogs/a\\nb\.jpg'\. Rename the file\.$"):
        data(photos)


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_many(tmp_path / "odd", {"$x_^$": 10, "[red]": 10})
    options = ["--data=datamodules.FolderDataModule", f"--data.root={tmp_path / 'odd'}"]
    main(["prepare", *options])
    assert "[red]" in capsys.readouterr().out
    main(["preview", *options, "--images=2", "--epochs=1"])


# CSV files


@pytest.fixture
def table(photos: Path) -> Path:
    """Return ``photos`` in one folder, with labels in a CSV file."""
    lines = ["id;breed\n"]
    for number, file in enumerate(sorted(photos.rglob("photo*"))):
        lines.append(f"{number:02};{file.parent.name}\n")
        save(photos / "images" / f"{number:02}.png")
        file.unlink()
    (photos / "labels.csv").write_text("".join(lines))
    return photos


def test_a_csv_file_becomes_index_files_that_may_be_edited(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = table.with_name("photos_prepared")
    with caplog.at_level("INFO"):
        first = data(table)
        assert (first.class_names, sums(first)) == (["dogs", "my cats"], [16, 2, 2])
        assert data(table).digest == first.digest
    assert "not used" not in caplog.text
    assert (folder / "classes.txt").read_text() == "dogs\nmy cats\n"
    (folder / "classes.txt").write_text("hounds\nmy cats\n")
    assert data(table).class_names == ["hounds", "my cats"]
    (table / "labels.csv").unlink()
    assert data(table).class_names == ["hounds", "my cats"]


def test_a_changed_csv_file_is_not_used_until_it_is_asked_for(table: Path) -> None:
    first = data(table)
    text = (table / "labels.csv").read_text()
    (table / "labels.csv").write_text(text.replace("my cats", "cats"))
    folder = table.with_name("photos_prepared")
    with pytest.raises(
        DataError, match=r"Expected labels\.csv as when .*_prepared was written, .*--data\.overwrite_split"
    ):
        data(table)
    assert data(table, overwrite_split=True).class_names == ["cats", "dogs"]
    assert (folder / "classes.txt.old").read_text() == "dogs\nmy cats\n"
    (table / "labels.csv").write_text(text)
    assert data(table, overwrite_split=True).digest == first.digest


def test_unlabelled_images_next_to_the_split_are_left_to_predict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = save_many(tmp_path / "images", {"train/a": 9, "train/b": 9, "val/a": 9, "val/b": 9, "test": 9})
    data(root)
    save(root / "train/a/new.png")
    with caplog.at_level("INFO"):
        data(root)
    assert f"1 files in {root} are not used, for example train/a/new.png: they are new. --data.overw" in caplog.text
    assert f"9 files in {root} are not used, for example test/0.png: they have no label" in caplog.text


# The user's index files


def test_given_index_files_are_used_byte_by_byte(tmp_path: Path) -> None:
    texts = {}
    for stage in STAGES:
        for label in (0, 1):
            save(tmp_path / "all/pictures" / f"{stage} {label}.png")
        texts[stage] = b"\xef\xbb\xbf" + f"pictures/{stage} 1.png\t1\r\npictures/{stage} 0.png 0\r\n".encode()
        (tmp_path / "all" / f"{stage}.txt").write_bytes(texts[stage])
    module = data(tmp_path / "all")
    assert (module.class_names, module.prepared.split) == (["0", "1"], {"name": "given"})
    (tmp_path / "all/classes.txt").write_text("night\nday\n")
    assert data(tmp_path / "all").class_names == ["night", "day"]
    (tmp_path / "all/classes.txt").write_text("day\nday\n")
    with pytest.raises(DataError, match=r"each name once.*got day, day"):
        data(tmp_path / "all")
    assert {stage: (tmp_path / "all" / f"{stage}.txt").read_bytes() for stage in texts} == texts


def test_given_index_files_are_never_changed(index: Path) -> None:
    with pytest.raises(DataError, match=r"Expected train\.txt, .* in .*photos, .* and no --data\.overwrite_split"):
        data(index, overwrite_split=True)
    (index / "val.txt").unlink()
    with pytest.raises(DataError, match=r"Add the missing ones, or move all away"):
        data(index)
    assert {path.name for path in index.iterdir()} == {"train.txt", "test.txt", "dogs", "my cats"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["train/cats/0.png", "train/dogs/0.png", "val/dogs/a/0.png"], ["cats", "dogs"]),
        (["train/images/cats/0.png", "train/images/dogs/0.png", "val/dogs/0.png"], ["cats", "dogs"]),
        (["0.png", "dogs/0.png", "dogs/1.png"], ["0", "1"]),
        (["cats/0.png", "dogs/0.png", "other/0.png"], ["0", "1"]),
    ],
)
def test_labels_are_named_by_the_folders_of_their_images(files: list[str], names: list[str]) -> None:
    assert name_labels({"train": [(file, int(i > 0)) for i, file in enumerate(files)]}) == names


# The split


def test_other_fractions_are_refused_until_they_are_asked_for_and_the_old_split_is_kept(photos: Path) -> None:
    folder = photos.with_name("photos_prepared")
    data(photos)
    text = (folder / "train.txt").read_text()
    with pytest.raises(DataError, match=r"0\.6.*--data\.overwrite_split true"):
        data(photos, fractions=(0.6, 0.2, 0.2))
    assert (folder / "train.txt").read_text() == text
    assert sum(data(photos, fractions=(0.6, 0.2, 0.2), overwrite_split=True).class_counts) == 12
    assert (folder / "train.txt.old").read_text() == text != (folder / "train.txt").read_text()


def test_an_existing_split_is_used_unless_another_is_requested(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:  # another rounding, by an earlier version
        patch.setattr(
            "datamodules.preparation.layout.divide", lambda entries, *_: [entries[:12], *[entries[12:16]] * 2]
        )
        before = data(photos, fractions=(0.6, 0.2, 0.2), split_seed=1)
    with caplog.at_level("INFO"):
        for options in ({}, {"fractions": (0.6, 0.2, 0.2)}, {"split_seed": 1}):
            assert data(photos, **options).digest == before.digest
    assert "edited" not in caplog.text
    with pytest.raises(DataError, match=r"but got .*'seed': 1\}\. .*--data\.overwrite_split true"):
        data(photos, split_seed=666)
    module = data(photos, overwrite_split=True)
    assert (module.prepared.split, module.class_counts) == ({"fractions": [0.6, 0.2, 0.2], "seed": 1}, [6, 6])


def test_overwriting_the_split_includes_new_photos_and_classes(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(photos)
    save_many(photos, {"eels": 10})
    with caplog.at_level("INFO"):
        assert data(photos).class_names == ["dogs", "my cats"]
    assert "10 files in" in caplog.text
    assert "eels/0.png: they are new. --data.overwrite_split true adds them." in caplog.text
    module = data(photos, overwrite_split=True)
    assert (module.class_names, module.class_counts) == (["dogs", "eels", "my cats"], [8, 8, 8])
    before = sorted(photos.parent.rglob("*"))
    assert data(photos, overwrite_split=True).digest == module.digest
    assert sorted(photos.parent.rglob("*")) == before


def test_folds_divide_train_and_val_by_class_and_stay_disjoint_when_photos_are_added(photos: Path) -> None:
    held_out = []
    for fold in range(3):
        module = data(photos, folds=3, fold=fold)
        assert module.prepared.counts["test"] == {"dogs": 1, "my cats": 1}
        held_out += module.prepared.entries["val"]
        save(photos / "dogs" / f"new {fold}.png")
    assert len(set(held_out)) == len(held_out) == 18
    folder = photos.with_name("photos_prepared")
    lines = (folder / "train.txt").read_text().splitlines(keepends=True)
    (folder / "train.txt").write_text("".join(lines[1:]))
    assert sum(sums(data(photos, folds=2))[:2]) == 17
    assert sum(sums(data(photos, folds=2, overwrite_split=True))) == 23


def test_the_cause_of_a_failed_first_preparation_can_be_fixed(photos: Path) -> None:
    (photos / "dogs" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png is not a readable image"):
        data(photos)
    (photos / "dogs" / "bad.png").unlink()
    assert data(photos, fractions=(0.6, 0.2, 0.2)).class_counts == [6, 6]


# Commands


@pytest.mark.slow
def test_photos_train_and_are_tested_by_one_command_each(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data(photos)
    caplog.set_level("INFO")
    fit = main(
        [
            *("fit", "--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={photos}"),
            *("--data.fractions=[0.6,0.2,0.2]", "--data.overwrite_split=true", "--callbacks=false", "--report=false"),
            *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"),
            f"--runs_dir={tmp_path / 'runs'}",
        ]
    )
    assert fit.trainer.global_step == 2
    assert f"2 classes (dogs, my cats) in {photos}; images: 12 train, 4 val, 4 test." in caplog.messages
    tested = main(["test", "--run", str(fit.run_dir)])
    assert "test/acc" in tested.trainer.callback_metrics
    # overwriting is not repeated with the config of the run
    assert yaml.safe_load((fit.run_dir / "config.yaml").read_text())["data"]["init_args"]["overwrite_split"] is False


def test_what_decoding_loses_is_reported_once_and_by_prepare(
    photos: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(photos.rglob("*.png"))
    for file in files:
        picture = Image.open(file)
        picture.putalpha(100)
        picture.save(file)
    first = files[0].relative_to(photos)
    what = "have transparent parts, which are composited over white unless --data.channels is 4"
    note = f"{len(files)} images {what} (for example {first})."
    with caplog.at_level("INFO"):
        data(photos)
        data(photos).setup("fit")
    assert caplog.messages.count(note) == 1
    main(["prepare", "--data=datamodules.FolderDataModule", f"--data.root={photos}"])
    assert note in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("empty", ["R", "GB", "RGB"])
def test_empty_channels_are_named_and_not_scaled(photos: Path, empty: str, caplog: pytest.LogCaptureFixture) -> None:
    for file in photos.rglob("*.*"):
        pixels = np.array(Image.open(file).convert("RGB"))
        Image.fromarray(pixels * np.uint8([name not in empty for name in "RGB"])).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    module = data(photos)
    with caplog.at_level("INFO"):
        module.setup("fit")
    assert [value == 1 for value in module.std] == [name in empty for name in "RGB"]
    assert caplog.text.count(f"no contrast in channel {', '.join(empty)}: it is not scaled") == 1
    assert all(torch.isfinite(images).all() for images, _ in module.train_dataloader())
