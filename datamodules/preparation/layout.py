"""Find the images of each stage and class in a folder, by the names of folders."""

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

OURS = re.compile(r"cache|folds_\d+")  # folders that this project makes in a data folder
# what stands around it, as in training_set, seg_train, PublicTest
ABOUT = r"(?:set|data|dataset|imgs?|images?|pictures|photos|samples|split|seg|public|private)"
STAGE_FOLDER = re.compile(
    rf"(?:{ABOUT}[ _.-]?)*(?:(?P<train>train|training|train_?val)|(?P<val>val|valid|validation|dev|eval|evaluation)|"
    rf"(?P<test>test|testing))(?:[ _.-]?{ABOUT})*",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # in train2017, asl_train, trainA
BESIDE_TRAIN = re.compile(  # folders that are neither a stage nor a class
    r"(?:un[ _.-]?)?label(?:l?ed|s|)|annotations?|masks?|hold[ _.-]?out|extra|images?|pred(?:ictions?)?|submissions?",
    re.IGNORECASE,
)


def find_stages(root: Path) -> dict[str, Path]:
    """Return the folder of train's class folders, and those of val and test if they have class folders of their own.

    Raises:
        DataError: There are no class folders, or not clear which are those of which stage.
    """
    top = unwrap(root)
    inner = class_folders(top)
    stages: dict[str, list[str]] = {}
    for name in inner:
        if found := STAGE_FOLDER.fullmatch(name):
            stages.setdefault(str(found.lastgroup), []).append(name)
    named = [name for names in stages.values() for name in names]
    if not named or ([name.lower() for name in named] == ["train"] and not class_folders(top / named[0])):  # a vehicle
        if top == root or top.name.lower() != "train":  # what lies in a folder called train alone is classes
            _check_classes(top, inner, named)
        for name in inner:
            below = class_folders(top / name)
            if len(below) > 1 and all(map(STAGE_FOLDER.fullmatch, below)):
                raise DataError(
                    f"Expected folders of classes within {below[0]}, but got {top / name / below[0]}. Put the folders "
                    f"of stages around those of classes; or give --data.root {top / name}, if it is a data set."
                )
        stages = {"train": [""]}
    if "train" not in stages:
        raise DataError(
            f"Expected {top / 'train'}, with a folder for each class, beside {named[0]}, but got {first_few(inner)}. "
            "Move the class folders into it; or rename a class that has the name of a stage."
        )
    folders: dict[str, Path] = {}
    for stage in [one for one in STAGES if one in stages]:
        known = class_folders(folders["train"]) if folders else []
        places = [unwrap(top / name, known) for name in stages[stage]]
        divided = [place for place in places if class_folders(place)]
        if len(divided) > 1:
            raise DataError(
                f"Expected one folder for {stage}, but got {' and '.join(map(str, divided))}. Move or rename one."
            )
        if divided:
            folders[stage] = divided[0]
        elif stage == "train":  # images of val or test without classes are just none to measure with
            raise DataError(
                f"Expected a folder of images for each class in {places[0]}, as {places[0]}/cats and {places[0]}/dogs, "
                "but it holds no folder."
            )
    return folders


def _check_classes(top: Path, names: Sequence[str], train: Sequence[str]) -> None:
    """Raise DataError if folders that are to be classes are named like stages: train2017 and val2017, train and test1.

    One class of several may hold such a word, as train_station.

    Args:
        top: Folder that they lie in.
        names: Their names.
        train: That of a folder called train, if there is one: it is a class only if nothing beside it is for training.
    """
    stages = {name: stage for name in names if (stage := _stage_word(name))}
    others = [name for name in names if name not in stages and BESIDE_TRAIN.fullmatch(name)]
    all_named = len(names) > 1 and len(stages) + len(others) == len(names)
    if len(set(stages.values())) > 1 or (stages and all_named) or (train and len(stages) + len(others) > 1):
        raise DataError(
            f"Expected a folder for each class in {top}, but {first_few([*stages, *others])} are named like parts of a "
            f"data set. Accepted are {top}/CLASS, or {top}/train/CLASS with val/CLASS and test/CLASS beside it, each "
            "with images: rename or move them. If they are classes, move all class folders into a new folder train."
        )


def _stage_word(name: str) -> str:
    """Return the stage that a word of a folder's name stands for, or "" if none does."""
    found = next(filter(None, map(STAGE_FOLDER.fullmatch, WORD.findall(name))), None)
    return str(found.lastgroup) if found else ""


def unwrap(folder: Path, known: Sequence[str] = ()) -> Path:
    """Return the first folder, from one on down, that holds more than another folder.

    Args:
        folder: Where to begin.
        known: Names of classes, which are not entered.
    """
    inner = class_folders(folder)
    if len(inner) != 1 or inner[0] in known:
        return folder
    only = folder / inner[0]
    return unwrap(only, known) if STAGE_FOLDER.fullmatch(inner[0]) or class_folders(only) else folder


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in alphabetical order, but for hidden ones, ours and the like."""
    with os.scandir(folder) as places:
        names = sorted(place.name for place in places if place.is_dir() and is_data(place.name))
    return [name for name in names if not OURS.fullmatch(name) or image_files(folder / name, folder)]


def find_images(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the image files in each class folder of ``folder``, as paths relative to ``root``.

    What is hidden (".DS_Store"), of another program ("@eaDir") or has no suffix of an image is passed over.
    """
    return {name: image_files(folder / name, root) for name in class_folders(folder)}


def image_files(folder: Path, root: Path) -> list[str]:
    """Return the image files from a folder on down, as paths relative to ``root`` in alphabetical order."""
    files = []
    for here, names in walk(folder):
        relative = Path(here).relative_to(root).as_posix()
        files += [f"{relative}/{one}" for one in names if os.path.splitext(one)[1].lower() in IMAGE_SUFFIXES]
    return sorted(files)


def find_others(root: Path, images: AbstractSet[str]) -> dict[str, list[str]]:
    """Return the files, but hidden ones and ours, that are not among ``images``, by the reason why not."""
    others: dict[str, list[str]] = defaultdict(list)
    for here, inner, names in os.walk(root):
        folder = Path(here).relative_to(root)
        top = not folder.parts
        inner[:] = [one for one in inner if not one.startswith(".") and not (top and OURS.fullmatch(one))]
        for name in names:
            file = name if top else f"{folder.as_posix()}/{name}"
            ours = top and re.search(r"^preview(_\d+)?\.png$|\.(txt|json|partial|old\d*)$", name)
            if ours or name.startswith(".") or file in images:
                continue
            if not all(map(is_data, folder.parts)):
                others["in a folder of another program"].append(file)
            elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                others["in no class folder in use: `predict` takes such"].append(file)
            else:
                others["without the suffix of an image that Pillow reads"].append(file)
    return others
