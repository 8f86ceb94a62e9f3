"""Check checkpoints and pretrained weights before a run directory is created."""

from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn

from lightning_modules import ImageClassifier
from lightning_modules.base import ImageModule
from lightning_modules.weights.pretrained import compare, in_words, read_state_dict, some
from lightning_modules.weights.safe_load import LoadError, load_safely
from project.errors import RunError
from project.runs.config import BEST, LAST

ADVICE = "Use one that `fit` wrote, such as RUN/checkpoints/last.ckpt"
WEIGHTS = "To load only its weights, use --model.pretrained instead of --ckpt_path"


def facts_of(file: str, weights_only: bool = True) -> dict[str, Any]:
    """Return epoch, step and hyperparameters of a checkpoint of ``fit``; an empty dict for any other file.

    Returns:
        "epoch", from 1, "step", and "hyper_parameters".
    """
    try:
        loaded = load_safely(file) if weights_only else torch.load(file, map_location="cpu", weights_only=False)
        epoch, step = int(loaded["epoch"]) + 1, int(loaded["global_step"])
        return {"epoch": epoch, "step": step, "hyper_parameters": dict(loaded["hyper_parameters"])}
    except Exception:  # an invalid file may raise almost any exception; check_weights reports it
        return {}


def data_of(hyper_parameters: dict[str, Any], module_class: Any) -> dict[str, Any]:
    """Return properties of the data that weights were trained on, from the hyperparameters of their checkpoint.

    Returns:
        "class_names", "class_counts", "mean" and "std"; the first two are None if the module is not a classifier,
        because it accepts images of any class. An empty dict if the checkpoint lacks them.
    """
    names, mean, std = (hyper_parameters.get(name) for name in ("class_names", "mean", "std"))
    if not all(isinstance(value, list) for value in (names, mean, std)):
        return {}
    if not (isinstance(module_class, type) and issubclass(module_class, ImageClassifier)):
        return {"class_names": None, "class_counts": None, "mean": mean, "std": std}
    counts = hyper_parameters.get("class_counts")
    return {"class_names": names, "class_counts": counts, "mean": mean, "std": std}


def check_classes(file: str, known: list[str], data: Any, training: bool) -> None:
    """Check that a checkpoint has all classes of the data and, for training, that the data has all of its classes.

    Their order matters only for a DataModule without ``match``, which maps labels to the checkpoint's order.

    Raises:
        RunError: The classes differ.
    """
    classes = list(getattr(data, "class_names", known))
    unknown = [name for name in classes if name not in known]
    missing = [name for name in known if name not in classes]
    if unknown:
        lack = f" (and the data has no {some(missing)})" if missing else ""
        advice = f" {WEIGHTS}." if training else ""
        raise RunError(
            f"Expected a checkpoint with the classes of the data, but {file} has no {some(unknown)}{lack}. "
            f"Rename the classes (folders, or classes.txt), or use another checkpoint.{advice}"
        )
    if training and missing:
        raise RunError(
            f"Expected training data with all classes of {file}, but it has no {some(missing)}. Add images of them."
        )
    if not hasattr(data, "match") and classes != known:
        raise RunError(
            f"Expected a checkpoint with the classes of the data in the same order, but {file} has another order. "
            f"Add the same class_names to {type(data).__name__}, or a method match like that of ImageDataModule."
        )


def check_weights(command: str, config: Any, module: LightningModule) -> None:
    """Check the checkpoint, pretrained weights and other files that a command loads.

    Args:
        command: "fit", "validate" or "test".
        config: Its options.
        module: Module that loads them.

    Raises:
        RunError: One of them is invalid.
    """
    if config.ckpt_path is None:
        if (pretrained := getattr(module, "pretrained", None)) is not None:
            read_state_dict(pretrained)
            if command == "fit" and isinstance(module, ImageClassifier):
                names = data_of(facts_of(pretrained).get("hyper_parameters", {}), type(module)).get("class_names")
                if names and names != module.class_names and set(names) == set(module.class_names):
                    rank_zero_warn(
                        f"{pretrained} was trained on these classes in another order, so the last layer starts with "
                        "the weights of other classes."
                    )
    elif config.weights_only is False:
        rank_zero_warn(
            f"--weights_only false executes any code in {config.ckpt_path}. Use it only with files that you trust."
        )
    else:
        check_checkpoint(str(config.ckpt_path), module, command == "fit")
    if command == "fit" and callable(check_files := getattr(module, "check_files", None)):
        check_files()


def check_checkpoint(file: str, module: LightningModule, resume: bool) -> None:
    """Check that a file is a checkpoint of a module.

    Args:
        file: Path of the file.
        module: Module that loads it.
        resume: Whether training resumes from it, which needs more than weights.

    Raises:
        RunError: It is not, or is damaged.
    """
    expected = f"Expected a checkpoint of `fit` at --ckpt_path, but {file}"
    try:
        loaded = load_safely(file)
    except LoadError as error:
        best = Path(file).with_name(BEST.name)
        damaged_last = Path(file).name == LAST.name and best.is_file()
        advice = f"{ADVICE}, or resume from --ckpt_path {best}" if damaged_last else ADVICE
        own = ", or --weights_only false for a file of your own" if "needs code" in str(error) else ""
        raise RunError(f"{expected} {error}. {advice}{own}.") from error
    if not isinstance(loaded, dict):
        raise RunError(f"{expected} holds a {type(loaded).__name__}. {ADVICE}.")
    state_dict, version = loaded.get("state_dict"), str(loaded.get("pytorch-lightning_version", ""))
    if not isinstance(state_dict, dict) or not version:
        raise RunError(f"{expected} was not written by Lightning. {ADVICE}. {WEIGHTS}.")
    current = lightning.pytorch.__version__
    if version.partition(".")[0] != current.partition(".")[0]:
        raise RunError(f"{expected} was written by Lightning {version[:20]}, and this is {current}. {WEIGHTS}.")
    if resume and not {"loops", "optimizer_states", "lr_schedulers"} <= loaded.keys():
        raise RunError(f"{expected} holds only weights, without the optimizer state that resuming needs. {WEIGHTS}.")
    if isinstance(module, ImageModule):
        _check_network(file, loaded, module)


def _check_network(file: str, loaded: dict[str, Any], module: ImageModule) -> None:
    """Compare the network's tensors with the checkpoint's: torch's own error lists every tensor."""
    state_dict = {name: value for name, value in loaded["state_dict"].items() if str(name).startswith("network.")}
    differences = compare(module.network.state_dict(), state_dict, "network.")
    del differences["loaded"]
    if not any(differences.values()):
        return
    raise RunError(
        f"Expected a checkpoint of the config's network at --ckpt_path, but {file} is of another network: "
        f"{in_words(differences)}. Use the config that it was trained with, or --model.pretrained to load the tensors "
        "that match."
    )
