"""Look at the files of weights that a command names, before it leaves the folder of a run behind."""

from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_modules import ImageClassifier
from lightning_modules.base import ImageModule
from lightning_modules.extras.distiller import load_teacher
from lightning_modules.weights.pretrained import compare, in_words, read_state_dict, some
from lightning_modules.weights.safe_load import LoadError, load_safely
from project.runs.config import BEST, LAST

ADVICE = "Give one that `fit` wrote, as RUN/checkpoints/last.ckpt"
WEIGHTS = "Give its weights alone as --model.pretrained, without --ckpt_path"


def facts_of(file: str, weights_only: bool = True) -> dict[str, Any]:
    """Return epoch, step and hyperparameters of a checkpoint of ``fit``; an empty dict for any other file.

    Returns:
        "epoch", from 1, "step", and "hyper_parameters".
    """
    try:
        loaded = load_safely(file) if weights_only else torch.load(file, map_location="cpu", weights_only=False)
        epoch, step = int(loaded["epoch"]) + 1, int(loaded["global_step"])
        return {"epoch": epoch, "step": step, "hyper_parameters": dict(loaded["hyper_parameters"])}
    except Exception:  # a file that is no checkpoint raises almost anything; check_weights reports it
        return {}


def data_of(hyper_parameters: dict[str, Any], module_class: Any) -> dict[str, Any]:
    """Return properties of the data that weights were trained on, from the hyperparameters of their checkpoint.

    Returns:
        "class_names", "class_counts", "mean" and "std"; the first two are None if the module is no classifier, because
        it takes images of any class. Empty if the checkpoint lacks them.
    """
    names, mean, std = (hyper_parameters.get(name) for name in ("class_names", "mean", "std"))
    if not all(isinstance(one, list) for one in (names, mean, std)):
        return {}
    if not (isinstance(module_class, type) and issubclass(module_class, ImageClassifier)):
        return {"class_names": None, "class_counts": None, "mean": mean, "std": std}
    counts = hyper_parameters.get("class_counts")
    return {"class_names": names, "class_counts": counts, "mean": mean, "std": std}


def check_classes(file: str, known: list[str], data: Any, training: bool) -> None:
    """Check that a checkpoint knows all classes of the data and, for training, that the data has all of its classes.

    Their order matters only for a DataModule without ``match``, which maps labels to the checkpoint's order.

    Raises:
        MisconfigurationException: The classes differ.
    """
    own = list(getattr(data, "class_names", known))
    unknown, missing = [name for name in own if name not in known], [name for name in known if name not in own]
    if unknown:
        lack = f" (and the data has no {some(missing)})" if missing else ""
        new = f" To train on other classes: {WEIGHTS[0].lower()}{WEIGHTS[1:]}." if training else ""
        raise MisconfigurationException(
            f"Expected a checkpoint of the data's classes, but {file} does not know {some(unknown)}{lack}. Name them "
            f"alike (by folders, or classes.txt), or give another checkpoint.{new}"
        )
    if training and missing:
        raise MisconfigurationException(
            f"Expected data with all classes of {file} to train on, but it has no {some(missing)}. Add images of them."
        )
    if not hasattr(data, "match") and own != known:
        raise MisconfigurationException(
            f"Expected a checkpoint of the data's classes in their order, but {file} is of others: give "
            f"{type(data).__name__} the same class_names, or a method match as datamodules.ImageDataModule has it."
        )


def check_weights(command: str, config: Any, module: LightningModule) -> None:
    """Check checkpoint, pretrained weights and teacher, as far as a command will load them.

    Args:
        command: "fit", "validate" or "test".
        config: Its options.
        module: What they are to be loaded into.

    Raises:
        MisconfigurationException: One of them is not as expected.
    """
    if config.ckpt_path is None:
        if (pretrained := getattr(module, "pretrained", None)) is not None:
            read_state_dict(pretrained)
            if command == "fit" and isinstance(module, ImageClassifier):
                names = data_of(facts_of(pretrained).get("hyper_parameters", {}), type(module)).get("class_names")
                if names and names != module.class_names and set(names) == set(module.class_names):
                    rank_zero_warn(
                        f"{pretrained} was trained on these classes in another order: the last layer begins as that of "
                        "other classes."
                    )
    elif config.weights_only is False:
        rank_zero_warn(
            f"--weights_only false: whatever code is in {config.ckpt_path} will be run. Load only files that you trust "
            "as you trust a program."
        )
    else:
        check_checkpoint(str(config.ckpt_path), module, command == "fit")
    if command == "fit" and (teacher := getattr(module, "teacher", None)) is not None:
        load_teacher(teacher)


def check_checkpoint(file: str, module: LightningModule, resume: bool) -> None:
    """Check that a file is a checkpoint of a module.

    Args:
        file: Path of the file.
        module: Module that it is to be loaded into.
        resume: Whether training is to go on from it, which needs more than weights.

    Raises:
        MisconfigurationException: It is not.
    """
    expected = f"Expected a checkpoint of `fit` at --ckpt_path, but {file}"
    try:
        loaded = load_safely(file)
    except LoadError as error:
        best = Path(file).with_name(BEST.name)
        damaged_last = Path(file).name == LAST.name and best.is_file()
        advice = f"{ADVICE}, or go on from --ckpt_path {best}" if damaged_last else ADVICE
        own = ", or --weights_only false for a file of your own" if "needs code" in str(error) else ""
        raise MisconfigurationException(f"{expected} {error}. {advice}{own}.") from error
    if not isinstance(loaded, dict):
        raise MisconfigurationException(f"{expected} holds a {type(loaded).__name__}. {ADVICE}.")
    state_dict, version = loaded.get("state_dict"), str(loaded.get("pytorch-lightning_version", ""))
    if not isinstance(state_dict, dict) or not version:
        raise MisconfigurationException(f"{expected} is none of Lightning's. {ADVICE}. {WEIGHTS}, if it has any.")
    here = lightning.pytorch.__version__
    if version.partition(".")[0] != here.partition(".")[0]:
        raise MisconfigurationException(
            f"{expected} was written by Lightning {version[:20]}, and this is {here}. {WEIGHTS}."
        )
    if resume and not {"loops", "optimizer_states", "lr_schedulers"} <= loaded.keys():
        raise MisconfigurationException(
            f"{expected} holds weights alone, and no state of optimizer and loops to go on from. {WEIGHTS}."
        )
    if isinstance(module, ImageModule):
        _check_network(file, loaded, module)


def _check_network(file: str, loaded: dict[str, Any], module: ImageModule) -> None:
    """Compare the network's tensors with the checkpoint's, so that the words are ours and not torch's page."""
    state_dict = {name: value for name, value in loaded["state_dict"].items() if str(name).startswith("network.")}
    found = compare(module.network.state_dict(), state_dict, "network.")
    del found["loaded"]
    if not any(found.values()):
        return
    raise MisconfigurationException(
        f"Expected a checkpoint of the config's network at --ckpt_path, but {file} is of another: "
        f"{in_words(found)}. Give the config that it was trained with, or what fits of it as --model.pretrained."
    )
