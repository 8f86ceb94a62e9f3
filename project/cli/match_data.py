"""Match a DataModule to the checkpoint that a command loads: classes and normalisation."""

import importlib
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn

from lightning_modules import ImageClassifier
from lightning_modules.weights.pretrained import some
from lightning_modules.weights.published import Published
from project.errors import RunError
from project.resume.resume import WEIGHTS, Resume


def trained_data(resume: Resume, class_path: str) -> dict[str, Any]:
    """Return properties of the data that the checkpoint was trained on; {} if the checkpoint lacks them.

    "class_names" and "class_counts" are None if the module, given by its import path, is not a classifier, because it
    accepts images of any class.
    """
    saved = {name: resume.hyper_parameters.get(name) for name in ("class_names", "class_counts", "mean", "std")}
    if not all(isinstance(saved[name], list) for name in ("class_names", "mean", "std")):
        return {}
    module, _, name = class_path.rpartition(".")
    if issubclass(getattr(importlib.import_module(module), name), ImageClassifier):
        return saved
    return saved | {"class_names": None, "class_counts": None}


def describe_data(data: LightningDataModule) -> dict[str, Any]:
    """Return class, root and digest of a DataModule, for run.json and results.json."""
    root, digest = str(getattr(data, "root", "")), getattr(getattr(data, "prepared", None), "digest", None)
    return {"class": type(data).__name__, "root": root, "digest": digest}


def match_data(
    data: LightningDataModule, resume: Resume, trained: dict[str, Any], published: Published | None = None
) -> None:
    """Set the classes and the normalisation of the data to those of the checkpoint, or of published weights.

    Args:
        data: The data.
        resume: The checkpoint and its run.
        trained: Result of ``trained_data`` or ``normalization_of``.
        published: Published weights from which training starts.

    Raises:
        DataError: The data's own normalisation contradicts the checkpoint.
        RunError: The data has other classes.
    """
    if trained.get("class_names") is not None:
        _check_classes(data, resume, trained["class_names"])
    if trained and hasattr(data, "match"):
        data.match(trained["class_names"], trained["mean"], trained["std"])
    size = resume.hyper_parameters.get("image_size") if trained else None
    if size is None and published is not None:
        size = published.image_size
    given = getattr(data, "image_size", size)
    if size is not None and given != size:
        what = f"the weights {published.name} were" if published is not None else "the checkpoint was"
        rank_zero_warn(f"Images have {given} pixels, but {what} trained on images of {size} pixels.")


def _check_classes(data: LightningDataModule, resume: Resume, known: list[str]) -> None:
    """Check that the checkpoint has all classes of the data and, for training, that the data has all of its classes.

    Their order matters only for a DataModule without ``match``, which maps labels to the checkpoint's order.
    """
    file, is_fit = resume.file, resume.command == "fit"
    classes = list(getattr(data, "class_names", known))
    missing = [name for name in known if name not in classes]
    if unknown := [name for name in classes if name not in known]:
        lack = f" (and the data has no {some(missing)})" if missing else ""
        raise RunError(
            f"Expected a checkpoint with the classes of the data, but {file} has no {some(unknown)}{lack}. Rename the "
            f"classes (folders, or classes.txt), or use another checkpoint.{f' {WEIGHTS}.' if is_fit else ''}"
        )
    if is_fit and missing:
        raise RunError(f"Expected training data with all classes of {file}, but it has no {some(missing)}.")
    if not hasattr(data, "match") and classes != known:
        raise RunError(
            f"Expected the classes of the data in the order of {file}, but got another. Reorder class_names of "
            f"{type(data).__name__}, or add a method match like that of ImageDataModule."
        )
