"""Read a file of weights without running code in it, or say in a few words why it cannot be."""

import importlib.util
import re
import sysconfig
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# what networks, losses, optimizers and schedules are made of
HARMLESS = (
    *("lightning_modules.", "torch.nn.", "torch.optim.", "torchvision.models.", "timm.models."),
    *("lightning.pytorch.cli.instantiate_module", "lightning.pytorch.cli.ReduceLROnPlateau"),
)


class LoadError(Exception):
    """A file cannot be loaded; the message goes on where its name ends: "is empty"."""


def load_safely(file: str | Path) -> Any:
    """Return what a file of ``torch.save`` or a .safetensors file holds, on the CPU.

    It is loaded with ``weights_only``, which knows tensors and plain values, and calls nothing.

    Raises:
        LoadError: The file is missing, empty, damaged, of another kind, or needs code to be run.
    """
    file = Path(file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        _check_archive(file)
        with warnings.catch_warnings(action="ignore"):  # about kinds of files that are refused a line later
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint raises almost anything
        raise LoadError(_reason(file, error)) from error


def check_names(checkpoint: Any) -> None:
    """Look at what a stranger's checkpoint names: ``load_from_checkpoint`` calls it, to build the network.

    Your own files are as trusted as you are; of what is installed, only what networks are made of is harmless.

    Raises:
        LoadError: It names other installed code, as ``torch.hub.load``, which runs code of any repository.
    """
    found = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    hyperparameters = {key: value for key, value in (found or {}).items() if key != "class_names"}
    for path in _strings(hyperparameters):
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", path) and not path.startswith(HARMLESS) and _installed(path):
            raise LoadError(f"names {path} to be called, which need not be a part of a network")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _installed(path: str) -> bool:
    """Tell whether an import path begins with a module of Python, or with an installed package."""
    try:
        spec = importlib.util.find_spec(path.partition(".")[0])
    except (ImportError, ValueError):
        return False
    folders = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return spec is not None and (spec.origin or "built-in").startswith((*folders, "built-in", "frozen"))


def _check_archive(file: Path) -> None:
    """Look at what torch does not: whether members are whole, and no larger than the file that they are in."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if any("/code/" in name for name in archive.namelist()):  # which is packed
            raise ValueError("TorchScript archive")
        if sum(member.file_size for member in archive.infolist()) > file.stat().st_size:  # torch.save packs nothing
            raise ValueError("it would unpack to more bytes than it has")
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")


def _reason(file: Path, error: Exception) -> str:
    """Return why a file cannot be loaded, from torch's page of advice to load it unsafely."""
    try:
        with file.open("rb") as stream:
            start = stream.read(100).strip()
    except OSError as problem:
        return "is a folder" if isinstance(problem, IsADirectoryError) else f"cannot be read ({problem.strerror})"
    if not start:
        return "is empty"
    if start.startswith(b"<"):
        return "is a web page"
    text = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"needs code of {found[1]} to be run, as a whole network or an optimizer does"
    if found := re.search(r"TorchScript archive|legacy \.tar format", text):
        return f"is of a kind that cannot be loaded safely ({found[0]})"
    if found := re.search(r"Unsupported operand \d+|Unsupported class \S+", text):
        text = found[0]
    first = text.strip().partition("\n")[0].partition(". ")[0]
    return f"is damaged or of another kind ({first or type(error).__name__})"
