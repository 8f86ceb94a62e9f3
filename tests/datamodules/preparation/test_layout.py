from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.preparation.layout import divide_folder, find_stages


def make(root: Path, *files: str) -> Path:
    """Create empty files and return their folder."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (["cats/0.png", "dogs/0.png"], {"train": ""}),
        (["PetImages/cats/0.png", "PetImages/dogs/0.png"], {"train": "PetImages"}),
        (["train/cats/0.png", "train/dogs/0.png"], {"train": "train"}),
        (["a/b/cats/0.png", "a/b/dogs/0.png", "a/readme.md"], {"train": "a/b"}),
        (["train/a/0.png", "val/a/0.png", "test/a/0.png"], {"train": "train", "val": "val", "test": "test"}),
        (["TRAINING/a/0.png", "Testing/a/0.png", "valid/a/0.png"],
         {"train": "TRAINING", "val": "valid", "test": "Testing"}),
        (["training_set/training_set/a/0.png", "training_set/training_set/b/0.png", "test_set/test_set/a/0.png"],
         {"train": "training_set/training_set", "test": "test_set/test_set"}),
        (["train_images/a/0.png", "dev-set/a/0.png"], {"train": "train_images", "val": "dev-set"}),
        (["seg_train/seg_train/a/0.png", "seg_test/seg_test/a/0.png", "seg_pred/seg_pred/0.png"],
         {"train": "seg_train/seg_train", "test": "seg_test/seg_test"}),
        (["images/train/a/0.png", "images/train/b/0.png", "images/val/a/0.png"],
         {"train": "images/train", "val": "images/val"}),
        (["train/images/a/0.png", "train/images/b/0.png", "val/images/a/0.png"],
         {"train": "train/images", "val": "val/images"}),
        (["train2017/a/0.png", "val2017/a/0.png"], {"train": "train2017", "val": "val2017"}),
        (["aslTrain/a/0.png", "aslTest/a/0.png", "readme/a"], {"train": "aslTrain", "test": "aslTest"}),
        (["train/a/0.png", "train/b/0.png", "val/a/2021/0.png"], {"train": "train", "val": "val"}),
        (["train/a/0.png", "val/a/0.png", "test/0.png"], {"train": "train", "val": "val"}),
        (["train/a/0.png", "test/0.png", "test_set/a/0.png"], {"train": "train", "test": "test_set"}),
        (["train/a/0.png", "@eaDir/train/0.png", "train/@eaDir/0.png"], {"train": "train"}),
        (["train/test/0.png", "train/eval/0.png", "train/other/0.png"], {"train": "train"}),
        *(([f"{name}/0.png" for name in names], {"train": ""}) for names in (
            *(["train_station", "subway_station", "Bullet train"], ["test_tube", "beaker"], ["mask", "no_mask"]),
            *(["trainer", "tester", "valley"], ["TRAINER", "VALLEY"], ["trial", "devil", "evaluator"]),
        )),
    ],
)  # fmt: skip
def test_folders_of_stages_are_found_and_classes_may_hold_words_of_stages(
    tmp_path: Path, files: list[str], folders: dict[str, str]
) -> None:
    assert find_stages(make(tmp_path, *files)) == {stage: tmp_path / folder for stage, folder in folders.items()}


@pytest.mark.parametrize(
    "files",
    [
        ["train/0.png", "val/0.png", "test/0.png"],
        ["train/train/0.png", "test/test/0.png"],
        ["data/Train/0.png", "data/Val/0.png"],
        ["training_set/0.png", "test_set/0.png"],
        ["train/0.png"],
        ["train/0.png", "train/@eaDir/0.png", "test/0.png"],
        ["train/0.png", "ship/0.png"],
        ["train2017/0.png", "val2017/0.png"],
        ["trainA/0.png", "trainB/0.png", "testA/0.png", "testB/0.png"],
        ["faces-train/0.png", "faces-valid/0.png", "readme/0.png"],
        ["train1/0.png", "train2/0.png"],
    ],
)
def test_train_without_class_folders_is_refused_with_the_layout_that_is_wanted(
    tmp_path: Path, files: list[str]
) -> None:
    root = make(tmp_path / "data", *files)
    train = (root / files[0]).parent
    with pytest.raises(DataError) as error:
        find_stages(root)
    assert str(error.value) == (
        f"Expected one folder of images per class in {train}, such as {train}/cats, or labels.csv, but it "
        "contains no folder. If it is a class itself, move all class folders into a new folder train."
    )
    if files[0] == "train2017/0.png":
        root.rename(tmp_path / "train")
        root.mkdir()
        (tmp_path / "train").rename(root / "train")
        assert find_stages(root) == {"train": root / "train"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "contains no folder"),
        (["val/a/0.png", "test/a/0.png"], r"Expected .*/train, with one folder per class, .* but got test, val\."),
        (["cats/0.png", "dogs/0.png", "test/0.png"], r"Expected .*/train, .* next to test, but got cats, dogs, test\."),
        (["train/a/0.png", "dev/a/0.png", "val/a/0.png"], r"one folder for val, but got .*/dev and .*/val\."),
        (["train/a/0.png", "training/a/0.png"], r"one folder for train, but got .*/train and .*/training\."),
        (["Training/a/0.png", "PublicTest/a/0.png", "PrivateTest/a/0.png"], "one folder for test, but got .*Private"),
        (["a/train/0.png", "a/test/0.png", "b/train/0.png", "b/test/0.png"], r"folders in a, b are named like splits"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], r"\(a, b\).*but got c\."),
        (["a/0.png", "empty/0.heif.txt"], r"Expected images in .*empty, but got no file with the suffix of an image"),
    ],
)
def test_folders_that_are_not_clear_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        divide_folder(make(tmp_path, *files), (0.8, 0.1, 0.1), 0)
    assert "\n" not in str(error.value)
