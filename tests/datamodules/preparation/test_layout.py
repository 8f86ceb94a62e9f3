from pathlib import Path

import pytest

from datamodules import DataError
from datamodules.errors import first_few
from datamodules.preparation.layout import find_images, find_others, find_stages


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
        (["Train/a/0.png", "Val/a/0.png"], {"train": "Train", "val": "Val"}),
        (["TRAINING/a/0.png", "Testing/a/0.png"], {"train": "TRAINING", "test": "Testing"}),
        (["training_set/a/0.png", "test_set/a/0.png"], {"train": "training_set", "test": "test_set"}),
        (["training_set/training_set/a/0.png", "training_set/training_set/b/0.png", "test_set/test_set/a/0.png"],
         {"train": "training_set/training_set", "test": "test_set/test_set"}),
        (["train_images/a/0.png", "dev-set/a/0.png"], {"train": "train_images", "val": "dev-set"}),
        (["seg_train/seg_train/a/0.png", "seg_test/seg_test/a/0.png", "seg_pred/seg_pred/0.png"],
         {"train": "seg_train/seg_train", "test": "seg_test/seg_test"}),
        (["images/train/a/0.png", "images/train/b/0.png", "images/val/a/0.png"],
         {"train": "images/train", "val": "images/val"}),
        (["train/images/a/0.png", "train/images/b/0.png", "val/images/a/0.png"],
         {"train": "train/images", "val": "val/images"}),
        (["train/a/0.png", "train/b/0.png", "val/a/2021/0.png"], {"train": "train", "val": "val"}),
        (["train/a/0.png", "val/a/0.png", "test/0.png"], {"train": "train", "val": "val"}),
        (["train/a/0.png", "test/0.png", "test_set/a/0.png"], {"train": "train", "test": "test_set"}),
        (["train/a/0.png", "@eaDir/train/0.png", "train/@eaDir/0.png"], {"train": "train"}),
    ],
)  # fmt: skip
def test_folders_of_stages_are_found(tmp_path: Path, files: list[str], folders: dict[str, str]) -> None:
    assert find_stages(make(tmp_path, *files)) == {stage: tmp_path / folder for stage, folder in folders.items()}


@pytest.mark.parametrize(
    "files",
    [
        ["train/0.png", "test/0.png"],
        ["train/0.png", "val/0.png", "test/0.png"],
        ["train/train/0.png", "test/test/0.png"],
        ["data/Train/0.png", "data/Val/0.png"],
        ["training_set/0.png", "test_set/0.png"],
        ["train/0.png"],
        ["train/0.png", "train/@eaDir/0.png", "test/0.png"],
        ["train/0.png", "ship/0.png"],
        ["training/0.png", "a/0.png"],
    ],
)
def test_train_without_class_folders_is_refused_with_the_layout_that_is_wanted(
    tmp_path: Path, files: list[str]
) -> None:
    train = (tmp_path / files[0]).parent
    with pytest.raises(DataError) as error:
        find_stages(make(tmp_path, *files))
    assert str(error.value) == (
        f"Expected one folder of images per class in {train}, such as {train}/cats, but it contains no folder. If it "
        "is a class itself, move all class folders into a new folder train."
    )


@pytest.mark.parametrize(
    "names",
    [
        ["train2017", "val2017"],
        ["asl_train", "asl_test"],
        ["trainA", "trainB", "testA", "testB"],
        ["TRAIN_1", "TEST_1"],
        ["faces-train", "faces-valid", "readme"],
        ["aslTrain", "aslDev"],
        ["train1", "train2"],
    ],
)
def test_folders_named_like_stages_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    root = make(tmp_path / "data", *(f"{name}/0.png" for name in names))
    with pytest.raises(DataError) as error:
        find_stages(root)
    named_like_stages = sorted(set(names) - {"readme"})
    assert str(error.value) == (
        f"Expected one folder per class in {root}, but {first_few(named_like_stages)} are named like splits. Use "
        f"{root}/CLASS, or {root}/train/CLASS with val/CLASS and test/CLASS next to it, each with images. If they are "
        "classes, move all class folders into a new folder train."
    )
    root.rename(tmp_path / "classes")
    root.mkdir()
    (tmp_path / "classes").rename(root / "train")
    assert find_stages(root) == {"train": root / "train"}


@pytest.mark.parametrize(
    "names",
    [
        ["train_station", "subway_station", "Bullet train"],
        ["test_tube", "beaker"],
        ["trainer", "tester", "valley"],
        ["TRAINER", "VALLEY"],
        ["trial", "devil", "evaluator"],
        ["mask", "no_mask"],
        ["labels", "stamps"],
    ],
)
def test_classes_may_hold_words_of_stages(tmp_path: Path, names: list[str]) -> None:
    assert find_stages(make(tmp_path, *(f"{name}/0.png" for name in names))) == {"train": tmp_path}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["val/a/0.png", "test/a/0.png"], r"Expected .*/train, with one folder per class, .* but got test, val\."),
        (["cats/0.png", "dogs/0.png", "test/0.png"], r"Expected .*/train, .* next to test, but got cats, dogs, test\."),
        (["a/0.png", "validation/a/0.png"], r"Expected .*/train, .* next to validation, but got a, validation\."),
        (["train/a/0.png", "dev/a/0.png", "val/a/0.png"], r"one folder for val, but got .*/dev and .*/val\."),
        (["train/a/0.png", "training/a/0.png"], r"one folder for train, but got .*/train and .*/training\."),
        (["Training/a/0.png", "PublicTest/a/0.png", "PrivateTest/a/0.png"], "one folder for test, but got .*Private"),
        (
            ["a/train/0.png", "a/test/0.png", "b/train/0.png", "b/test/0.png"],
            r"a/test, a/train, .* named like splits",
        ),
    ],
)
def test_folders_of_stages_that_are_not_clear_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        find_stages(make(tmp_path, *files))
    assert "\n" not in str(error.value)


def test_folders_of_other_programs_are_no_classes_and_hold_no_images(tmp_path: Path) -> None:
    others = (
        "@eaDir/0.png",
        "cats/@eaDir/0.png/thumb.jpg",
        "__MACOSX/cats/0.png",
        "#recycle/0.png",
        "$RECYCLE.BIN/0.png",
    )
    make(tmp_path, "cats/0.png", "cats/young/0.png", "cats/a.txt", "cats/.0.png", "dogs/0.png", "0.png", *others)
    (tmp_path / "lost+found").mkdir()
    assert find_images(tmp_path, tmp_path) == {"cats": ["cats/0.png", "cats/young/0.png"], "dogs": ["dogs/0.png"]}
    assert find_others(tmp_path, {"cats/0.png", "cats/young/0.png", "dogs/0.png"}) == ["0.png"]
