"""Load weights into a network, and say what matched."""

from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from lightning_modules.weights.safe_load import LoadError, load_safely

NESTED = ("state_dict", "model_state_dict", "model", "net")  # where checkpoints keep it; the first is Lightning's
WRAPPERS = ("network", "model", "net", "module", "_orig_mod")  # attributes, DataParallel or an average, torch.compile
LIMIT = 8  # names of a kind that are shown


def load_pretrained(network: nn.Module, file: str, whole: bool = False) -> None:
    """Load every tensor of ``file`` that has a name and shape of ``network``, and print which had and which had not.

    Prefixes of names that wrappers leave, as "network." or "module._orig_mod.", are taken off if that makes more names
    match.

    Args:
        network: Network to load into.
        file: A state_dict, or a checkpoint with one under ``NESTED``, as written by ``torch.save``; or .safetensors.
            It cannot run code; see ``load_safely``.
        whole: Insist on weights for all of the network, as for measuring it.

    Raises:
        MisconfigurationException: The file is missing or no state_dict, or nothing (``whole``: not all) matches.
    """
    own, loaded = network.state_dict(), read_state_dict(file)
    prefix = _prefix(loaded, own)
    found = compare(own, loaded, prefix)
    matched = found["loaded"]
    title = f"{len(matched)} of the network's {len(own)} tensors loaded from {file}"
    if prefix:
        title += f", without {prefix!r} before their names"
    if not matched or (whole and len(matched) < len(own)):
        del found["loaded"]
        raise MisconfigurationException(
            f"Expected weights of {type(network).__name__} at --model.pretrained, but got {title}; {in_words(found)}."
        )
    network.load_state_dict({name: loaded[f"{prefix}{name}"] for name in matched}, strict=False)
    table = Table("pretrained", "tensors", "names", title=escape(title))
    for what, names in found.items():
        table.add_row(what, f"{len(names)}", escape(some(names)))
    rank_zero_only(rich_print)(table)


def compare(own: dict[str, Any], loaded: dict[str, Any], prefix: str = "") -> dict[str, list[str]]:
    """Return which tensors of a network's own state_dict a loaded one has, and which not, by what is the matter.

    Args:
        own: The network's.
        loaded: Another, of any values.
        prefix: Beginning of the names in ``loaded`` that are the network's.
    """
    inner = {name.removeprefix(prefix): value for name, value in loaded.items() if name.startswith(prefix)}
    here, there = _shapes(own), _shapes(inner)
    return {
        "loaded": [name for name in own if there.get(name) == here[name]],
        "mismatched": [
            f"{name} is {there[name]}, not {here[name]}" for name in own if there.get(name, here[name]) != here[name]
        ],
        "missing in the file": [name for name in own if name not in inner],
        "unexpected in the file": [
            name for name in loaded if not name.startswith(prefix) or name.removeprefix(prefix) not in own
        ],
    }


def in_words(found: dict[str, list[str]]) -> str:
    """Return names by what is the matter with them in a line."""
    return "; ".join(f"{len(names)} {what} ({some(names)})" for what, names in found.items() if names)


def read_state_dict(file: str) -> dict[str, Any]:
    """Return the state_dict in a file, wherever it lies within.

    Raises:
        MisconfigurationException: The file is missing, damaged, or holds something else.
    """
    if not Path(file).is_file():
        raise MisconfigurationException(f"Expected a file of weights at --model.pretrained, but {file} does not exist.")
    try:
        loaded = load_safely(file)
    except LoadError as error:
        raise _not_weights(file, str(error)) from error
    for key in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise _not_weights(file, f"holds a {type(loaded).__name__}")
    if not any(isinstance(value, Tensor) for value in loaded.values()):
        raise _not_weights(file, f"holds {some(list(loaded)) or 'nothing'}")
    return loaded


def _not_weights(file: str, reason: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"Expected a state_dict (names and tensors) at --model.pretrained, but {file} {reason}. Save it with "
        "torch.save(network.state_dict(), file), or as .safetensors."
    )


def _prefix(loaded: dict[str, Any], own: dict[str, Any]) -> str:
    """Return the prefix, of wrappers within wrappers, without which most names match; the shortest of equals."""
    prefixes = {""}
    for name in loaded:
        wrappers = list(takewhile(WRAPPERS.__contains__, name.split(".")))
        prefixes |= {"".join(f"{wrapper}." for wrapper in wrappers[: depth + 1]) for depth in range(len(wrappers))}
    return max(sorted(prefixes, key=len), key=lambda prefix: sum(f"{prefix}{name}" in loaded for name in own))


def _shapes(state_dict: dict[str, Any]) -> dict[str, tuple[int, ...] | str]:
    """Return the shape of each tensor, and the kind of what is none."""
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in state_dict.items()
    }


def some(names: list[str]) -> str:
    """Return the first of some names, and how many there are beside them."""
    return ", ".join(names[:LIMIT]) + (f", and {len(names) - LIMIT} more" if len(names) > LIMIT else "")
