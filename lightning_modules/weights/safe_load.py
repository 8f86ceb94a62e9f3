"""Read a file of weights without running code in it, or raise a short reason."""

import importlib.util
import json
import re
import sysconfig
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HARMLESS = (  # packages of networks, losses, optimizers and schedules
    *("lightning_modules.", "torch.nn.", "torch.optim.", "torchvision.models.", "timm.models."),
    *("lightning.pytorch.cli.instantiate_module", "lightning.pytorch.cli.ReduceLROnPlateau"),
)


class LoadError(Exception):
    """A file cannot be loaded; the message continues after the name of the file: "is empty"."""


def load_safely(file: str | Path) -> Any:
    """Load the tensors and plain values of a ``torch.save`` or .safetensors file on the CPU, without calling anything.

    Raises:
        LoadError: The file is missing, empty, damaged or of another format, or loading it would run code.
    """
    file = Path(file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_archive(file)
        with warnings.catch_warnings(action="ignore"):  # about file formats that are rejected below
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not a checkpoint can raise almost any exception
        raise LoadError(_reason(file, error)) from error


def check_names(checkpoint: Any) -> None:
    """Check the import paths in an untrusted checkpoint, which ``load_from_checkpoint`` calls to build the network.

    Local files are trusted; of installed packages, only those of networks are allowed.

    Raises:
        LoadError: It names other installed code, such as ``torch.hub.load``, which runs code of any repository.
    """
    saved = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    hyperparameters = {key: value for key, value in (saved or {}).items() if key not in ("class_names", "pretrained")}
    text = json.dumps(hyperparameters, default=str, ensure_ascii=False)
    if match := re.search(r'"timm:[^"]*:[^"]*"', text):  # this project saves the architecture instead
        raise LoadError(f"reads {match[0]} to build its network")
    for path in re.findall(r'"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)"', text):
        if not path.startswith(HARMLESS) and _installed(path):
            raise LoadError(f"calls {path}, which is not known to be a part of a network")


def _installed(path: str) -> bool:
    """Return whether an import path begins with a module of Python or an installed package."""
    try:
        spec = importlib.util.find_spec(path.partition(".")[0])
    except (ImportError, ValueError):
        return False
    folders = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return spec is not None and (spec.origin or "built-in").startswith((*folders, "built-in", "frozen"))


def _check_archive(file: Path) -> None:
    """Check what torch does not check: the checksums of members, and that they are not larger than the file."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > file.stat().st_size:  # torch.save does not compress
            raise ValueError("it would unpack to more bytes than it has")
        if member := archive.testzip():
            raise ValueError(f"wrong checksum of {member}")


def _reason(file: Path, error: Exception) -> str:
    """Return why a file cannot be loaded, extracted from torch's long error message."""
    try:
        with file.open("rb") as stream:
            start = stream.read(100).strip()
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    if not start:
        return "is empty"
    if start.startswith(b"<"):
        return "is a web page"
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    if match := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"needs code of {match[1]} to be run, like a pickled network or optimizer"
    first = text.partition("\n")[0].partition(". ")[0]
    return f"is damaged or of another kind ({first or type(error).__name__})"
