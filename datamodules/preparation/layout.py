"""Find the images of each stage and class in a folder by the names of its folders."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import DataError, first_few
from datamodules.preparation.index import STAGES, Entries
from datamodules.preparation.split import divide
from datamodules.reading.files import is_data, is_image, relative_files

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # in train2017, asl_train, PublicTest
STAGE_WORD = re.compile(
    r"(?:(?P<train>train|training|trainval)|(?P<val>val|valid|validation|dev|eval|evaluation)|(?P<test>test|testing))"
    r"(?:set|data)?"
)
NEUTRAL = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "seg"}  # words next to that of a stage


def divide_folder(root: Path, fractions: Sequence[float], seed: int) -> Entries:
    """Split the images of a folder into "train", "val" and "test", by its folders or else by fractions.

    A folder of val or test gives all its images; a stage without a folder is split off from train.

    Raises:
        DataError: There are no class folders, a class is empty or unknown in train, or stages are ambiguous.
    """
    folders = find_stages(root)
    names = class_folders(folders["train"])
    parts: Entries = {stage: [] for stage in folders}
    for stage, folder in folders.items():
        for name in class_folders(folder):
            if name not in names:
                raise DataError(
                    f"Expected the classes of {folders['train']} ({', '.join(names)}) in {folder} too, but got {name}. "
                    "Rename it, or move it away."
                )
            files = list(filter(is_image, relative_files(folder / name, root)))
            if not files:
                raise DataError(
                    f"Expected images in {folder / name}, but got no file with the suffix of an image, such as .png. "
                    "Add images, or remove the folder."
                )
            label = names.index(name)
            parts[stage] += [(file, label) for file in files]
    return complete(parts, fractions, seed)


def complete(parts: Entries, fractions: Sequence[float], seed: int) -> Entries:
    """Return "train", "val" and "test"; stages that are missing in ``parts`` are split off from train."""
    missing = [stage for stage in STAGES if stage not in parts]
    shares = [share for stage, share in zip(STAGES, fractions, strict=True) if stage in ("train", *missing)]
    divided = divide(parts["train"], [share / sum(shares) for share in shares], seed)
    parts = parts | dict(zip(["train", *missing], divided, strict=True))
    return {stage: parts[stage] for stage in STAGES}


def find_stages(root: Path) -> dict[str, Path]:
    """Return the folder that holds the class folders of train, and those of val and test if they exist."""
    top = unwrap(root)
    names = class_folders(top)
    only_train = top != root and top.name.lower() == "train" and "train" not in names  # then all folders are classes
    stages = {} if only_train else stage_folders(names)
    if not stages:
        if sum(bool(stage_folders(class_folders(top / name))) for name in names) > 1:
            raise DataError(
                f"Expected {top}/CLASS, or {top}/train/CLASS with val/CLASS and test/CLASS next to it, but folders in "
                f"{first_few(names)} are named like splits. Rename or move them."
            )
        stages = {"train": [""]}
    elif "train" not in stages:
        raise DataError(
            f"Expected {top / 'train'}, with one folder per class, next to {next(iter(stages.values()))[0]}, but got "
            f"{first_few(names)}. Move the class folders into it, or rename a class that has the name of a stage."
        )
    folders: dict[str, Path] = {}
    for stage in [name for name in STAGES if name in stages]:
        known = class_folders(folders["train"]) if folders else []
        places = [unwrap(top / name, known) for name in stages[stage]]
        divided = [place for place in places if class_folders(place)]
        if len(divided) > 1:
            raise DataError(
                f"Expected one folder for {stage}, but got {' and '.join(map(str, divided))}. Move or rename one; if "
                "they are classes, move all class folders into a new folder train."
            )
        if divided:
            folders[stage] = divided[0]
        elif stage == "train":  # val or test without class folders is ignored
            raise DataError(
                f"Expected one folder of images per class in {places[0]}, such as {places[0]}/cats, or labels.csv, but "
                "it contains no folder. If it is a class itself, move all class folders into a new folder train."
            )
    return folders


def stage_folders(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders of each stage, or nothing if all are classes.

    One class of several may contain the word for a stage, such as train_station. Folders of stages have only this and
    neutral words (training_set), or there are several stages (asl_train, asl_test), or all folders have such a word.
    """
    stages = defaultdict(list)
    certain = False
    for name in names:
        words = [word.lower() for word in WORD.findall(name)]
        matches = [match for match in map(STAGE_WORD.fullmatch, words) if match]
        if len(matches) == 1:
            stages[str(matches[0].lastgroup)].append(name)
            certain |= NEUTRAL.issuperset(set(words) - {matches[0].string})
    every = sum(map(len, stages.values())) == len(names) > 1
    return dict(stages) if certain or every or len(stages) > 1 else {}


def stages_in(name: str) -> list[str]:
    """Return the stages in a name that has only such and neutral words, such as training_set or train-labels."""
    words = {word.lower() for word in WORD.findall(name)} - NEUTRAL - {"label", "labels"}
    matches = [match for match in map(STAGE_WORD.fullmatch, words) if match]
    return [str(match.lastgroup) for match in matches] if len(matches) == len(words) else []


def unwrap(folder: Path, known: Sequence[str] = ()) -> Path:
    """Return the first folder from ``folder`` inwards that contains more than a single folder, or a known class."""
    inner = class_folders(folder)
    if len(inner) != 1 or inner[0] in known:
        return folder
    only = folder / inner[0]
    return unwrap(only, known) if stage_folders(inner) or class_folders(only) else folder


def class_folders(folder: Path) -> list[str]:
    """Return the class folders in a folder, sorted, without hidden ones and those of other programs."""
    with os.scandir(folder) as places:
        return sorted(place.name for place in places if place.is_dir() and is_data(place.name))
