"""Find the images of each stage and class in a folder by the names of its folders."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from datamodules.errors import DataError, first_few
from datamodules.preparation.index import STAGES
from datamodules.reading.decode import IMAGE_SUFFIXES
from datamodules.reading.files import is_data, walk

OUTPUT_FOLDERS = re.compile(r"cache|folds_\d+")  # folders that this project creates in a data folder
# words around the stage, as in training_set, seg_train, PublicTest
ABOUT = r"(?:set|data|dataset|imgs?|images?|pictures|photos|samples|split|seg|public|private)"
STAGE_FOLDER = re.compile(
    rf"(?:{ABOUT}[ _.-]?)*(?:(?P<train>train|training|train_?val)|(?P<val>val|valid|validation|dev|eval|evaluation)|"
    rf"(?P<test>test|testing))(?:[ _.-]?{ABOUT})*",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # in train2017, asl_train, trainA
BESIDE_TRAIN = re.compile(  # folders next to train that are neither a stage nor a class
    r"(?:un[ _.-]?)?label(?:l?ed|s|)|annotations?|masks?|hold[ _.-]?out|extra|images?|pred(?:ictions?)?|submissions?",
    re.IGNORECASE,
)


def find_stages(root: Path) -> dict[str, Path]:
    """Return the folder that holds the class folders of train, and those of val and test if they exist.

    Raises:
        DataError: There are no class folders, or their stages are ambiguous.
    """
    top = unwrap(root)
    inner = class_folders(top)
    stages: dict[str, list[str]] = {}
    for name in inner:
        if match := STAGE_FOLDER.fullmatch(name):
            stages.setdefault(str(match.lastgroup), []).append(name)
    named = [name for names in stages.values() for name in names]
    if not named or ([name.lower() for name in named] == ["train"] and not class_folders(top / named[0])):  # a vehicle
        if top == root or top.name.lower() != "train":  # folders in a single folder called train are classes
            _check_classes(top, inner, named)
        for name in inner:
            below = class_folders(top / name)
            if len(below) > 1 and all(map(STAGE_FOLDER.fullmatch, below)):
                raise DataError(
                    f"Expected class folders within {below[0]}, but got {top / name / below[0]}. Put the class folders "
                    f"into those of the stages; or use --data.root {top / name} if it is a dataset of its own."
                )
        stages = {"train": [""]}
    if "train" not in stages:
        raise DataError(
            f"Expected {top / 'train'}, with one folder per class, next to {named[0]}, but got {first_few(inner)}. "
            "Move the class folders into it, or rename a class that has the name of a stage."
        )
    folders: dict[str, Path] = {}
    for stage in [name for name in STAGES if name in stages]:
        known = class_folders(folders["train"]) if folders else []
        places = [unwrap(top / name, known) for name in stages[stage]]
        divided = [place for place in places if class_folders(place)]
        if len(divided) > 1:
            raise DataError(
                f"Expected one folder for {stage}, but got {' and '.join(map(str, divided))}. Move or rename one."
            )
        if divided:
            folders[stage] = divided[0]
        elif stage == "train":  # val or test without class folders is ignored
            raise DataError(
                f"Expected one folder of images per class in {places[0]}, such as {places[0]}/cats, but it contains no "
                "folder."
            )
    return folders


def _check_classes(top: Path, names: Sequence[str], train: Sequence[str]) -> None:
    """Raise DataError if class folders are named like stages: train2017 and val2017, train and test1.

    One class of several may contain such a word, for example train_station.

    Args:
        top: Parent of the class folders.
        names: Names of the class folders.
        train: Name of the folder called train, if any: it is a class only if no other folder is for training.
    """
    stages = {name: stage for name in names if (stage := _stage_word(name))}
    others = [name for name in names if name not in stages and BESIDE_TRAIN.fullmatch(name)]
    all_named = len(names) > 1 and len(stages) + len(others) == len(names)
    if len(set(stages.values())) > 1 or (stages and all_named) or (train and len(stages) + len(others) > 1):
        raise DataError(
            f"Expected one folder per class in {top}, but {first_few([*stages, *others])} are named like splits. Use "
            f"{top}/CLASS, or {top}/train/CLASS with val/CLASS and test/CLASS next to it, each with images. If they "
            "are classes, move all class folders into a new folder train."
        )


def _stage_word(name: str) -> str:
    """Return the stage that a word in a folder's name stands for, or "" if there is none."""
    match = next(filter(None, map(STAGE_FOLDER.fullmatch, WORD.findall(name))), None)
    return str(match.lastgroup) if match else ""


def unwrap(folder: Path, known: Sequence[str] = ()) -> Path:
    """Return the first folder, starting at ``folder``, that contains more than a single folder.

    Args:
        folder: Folder to start from.
        known: Class names, which are not entered.
    """
    inner = class_folders(folder)
    if len(inner) != 1 or inner[0] in known:
        return folder
    only = folder / inner[0]
    return unwrap(only, known) if STAGE_FOLDER.fullmatch(inner[0]) or class_folders(only) else folder


def class_folders(folder: Path) -> list[str]:
    """Return the class folders in a folder, sorted, without hidden ones and those of this or other programs."""
    with os.scandir(folder) as places:
        names = sorted(place.name for place in places if place.is_dir() and is_data(place.name))
    return [name for name in names if not OUTPUT_FOLDERS.fullmatch(name) or image_files(folder / name, folder)]


def find_images(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the image files in each class folder of ``folder``, as paths relative to ``root``.

    Hidden files (".DS_Store"), folders of other programs ("@eaDir") and files without an image suffix are ignored.
    """
    return {name: image_files(folder / name, root) for name in class_folders(folder)}


def image_files(folder: Path, root: Path) -> list[str]:
    """Return the image files in a folder and its subfolders, as sorted paths relative to ``root``."""
    files = []
    for parent, names in walk(folder):
        relative = Path(parent).relative_to(root).as_posix()
        files += [f"{relative}/{name}" for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    return sorted(files)


def find_others(root: Path, images: AbstractSet[str]) -> dict[str, list[str]]:
    """Return the files that are not in ``images``, by reason, without hidden files and those of this project."""
    others: dict[str, list[str]] = defaultdict(list)
    for parent, inner, names in os.walk(root):
        folder = Path(parent).relative_to(root)
        top = not folder.parts
        inner[:] = [name for name in inner if not name.startswith(".") and not (top and OUTPUT_FOLDERS.fullmatch(name))]
        for name in names:
            file = name if top else f"{folder.as_posix()}/{name}"
            is_output = top and re.search(r"^preview(_\d+)?\.png$|\.(txt|json|partial|old\d*)$", name)
            if is_output or name.startswith(".") or file in images:
                continue
            if not all(map(is_data, folder.parts)):
                others["in a folder of another program"].append(file)
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                others["in no class folder; `predict` can classify them"].append(file)
            else:
                others["without an image suffix"].append(file)
    return others
