"""Find the images of each stage and class in a folder by the names of its folders."""

import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from datamodules.errors import DataError, first_few
from datamodules.preparation.index import STAGES, Entries, Entry
from datamodules.preparation.split import divide
from datamodules.reading.decode import IMAGE_SUFFIXES
from datamodules.reading.files import is_data, walk

OUTPUT_FOLDERS = re.compile(r"cache|folds_\d+")  # folders that earlier versions created next to the images
# words around the stage, as in training_set, seg_train, PublicTest
ABOUT = r"(?:set|data|dataset|imgs?|images?|pictures|photos|samples|split|seg|public|private)"
STAGE_FOLDER = re.compile(
    rf"(?:{ABOUT}[ _.-]?)*(?:(?P<train>train|training|train_?val)|(?P<val>val|valid|validation|dev|eval|evaluation)|"
    rf"(?P<test>test|testing))(?:[ _.-]?{ABOUT})*",
    re.IGNORECASE,
)
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # in train2017, asl_train, trainA


def divide_folder(root: Path, fractions: Sequence[float], seed: int) -> Entries:
    """Split the images of a folder into "train", "val" and "test", by its folders or else by fractions.

    Args:
        root: Folder to which paths are relative.
        fractions: Fractions of train, val and test. A folder of val or test has all its images; train is divided.
        seed: Seed of the split.

    Raises:
        DataError: There are no class folders, a class is empty or unknown in train, or stages are ambiguous.
    """
    folders = find_stages(root)
    files_of = {stage: find_images(folder, root) for stage, folder in folders.items()}
    names = sorted(files_of["train"])
    parts: Entries = {}
    for stage, classes in files_of.items():
        if unknown := sorted(classes.keys() - set(names)):
            raise DataError(
                f"Expected the classes of {folders['train']} ({', '.join(names)}) in {folders[stage]} too, but got "
                f"{', '.join(unknown)}. Rename these folders to classes of train, or move them away."
            )
        parts[stage] = label_entries(classes, folders[stage], names)
    missing = [stage for stage in STAGES if stage not in parts]
    shares = [share for stage, share in zip(STAGES, fractions, strict=True) if stage in ("train", *missing)]
    divided = divide(parts["train"], [share / sum(shares) for share in shares], seed)
    parts |= dict(zip(["train", *missing], divided, strict=True))
    return {stage: parts[stage] for stage in STAGES}


def label_entries(files_of: dict[str, list[str]], folder: Path, names: Sequence[str]) -> list[Entry]:
    """Return the path and label of each image; labels are positions in ``names``.

    Raises:
        DataError: A class has no images.
    """
    for name, files in files_of.items():
        if not files:
            other = next((f"{parent}/{inner[0]}" for parent, inner in walk(folder / name) if inner), "")
            got = f"only files without an image suffix, for example {other}" if other else "none"
            raise DataError(f"Expected images in {folder / name}, but got {got}. Add images, or remove the folder.")
    label_of = {name: label for label, name in enumerate(names)}
    return [(file, label_of[name]) for name, files in files_of.items() for file in files]


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
    if not stages:
        if top == root or top.name.lower() != "train":  # folders in a single folder called train are classes
            _check_classes(top, inner)
        stages = {"train": [""]}
    elif "train" not in stages:
        raise DataError(
            f"Expected {top / 'train'}, with one folder per class, next to {next(iter(stages.values()))[0]}, but got "
            f"{first_few(inner)}. Move the class folders into it, or rename a class that has the name of a stage."
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
                "folder. If it is a class itself, move all class folders into a new folder train."
            )
    return folders


def _check_classes(top: Path, names: Sequence[str]) -> None:
    """Raise DataError if class folders look like those of stages: train2017 and val2017, or a/train and b/train.

    One class of several may contain such a word, for example train_station.
    """
    stages = {name: str(match.lastgroup) for name in names if (match := _find_stage(name))}
    below = [
        f"{name}/{inner}" for name in names for inner in class_folders(top / name) if STAGE_FOLDER.fullmatch(inner)
    ]
    if len(set(stages.values())) > 1 or len(stages) == len(names) > 1 or len(below) > 1:
        raise DataError(
            f"Expected one folder per class in {top}, but {first_few([*stages, *below])} are named like splits. Use "
            f"{top}/CLASS, or {top}/train/CLASS with val/CLASS and test/CLASS next to it, each with images. If they "
            "are classes, move all class folders into a new folder train."
        )


def _find_stage(name: str) -> re.Match[str] | None:
    """Return the match of a word for a stage in a folder's name."""
    return next(filter(None, map(STAGE_FOLDER.fullmatch, WORD.findall(name))), None)


def unwrap(folder: Path, known: Sequence[str] = ()) -> Path:
    """Return the first folder from ``folder`` inwards that contains more than a single folder, or a known class."""
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
    """Return the image files in each class folder of ``folder``, as paths relative to ``root``."""
    return {name: image_files(folder / name, root) for name in class_folders(folder)}


def image_files(folder: Path, root: Path) -> list[str]:
    """Return the image files in a folder and its subfolders, as sorted paths relative to ``root``."""
    files = []
    for parent, names in walk(folder):
        relative = Path(parent).relative_to(root).as_posix()
        files += [f"{relative}/{name}" for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    return sorted(files)


def find_others(root: Path, images: AbstractSet[str]) -> list[str]:
    """Return the files that are not in ``images``, without hidden files, text files and those of other programs."""
    files = [f"{Path(parent).relative_to(root).as_posix()}/{name}" for parent, names in walk(root) for name in names]
    return [file.removeprefix("./") for file in files if file not in images and not file.endswith((".txt", ".json"))]
