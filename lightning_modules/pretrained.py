"""Load weights into a network, and say what matched."""

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

PREFIXES = ("network.", "module.")  # of an ImageClassifier's checkpoint, and of a network saved inside DataParallel


def load_pretrained(network: nn.Module, file: str, whole: bool = False) -> None:
    """Load every tensor of ``file`` that has a name and shape of ``network``, and say which had not.

    Args:
        network: Network to load into.
        file: A plain state_dict, or a checkpoint with one under ``state_dict``, as written by ``torch.save``. It is
            loaded with ``weights_only``, so that it cannot run code.
        whole: Insist on weights for all of the network, as for measuring it.

    Raises:
        MisconfigurationException: The file is missing or no state_dict, or nothing (``whole``: not all) matches.
    """
    if not Path(file).is_file():
        raise MisconfigurationException(f"Expected a file of weights at --model.pretrained, but {file} does not exist.")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint raises almost anything
        raise MisconfigurationException(
            f"Expected a state_dict saved by torch.save at --model.pretrained, but {file} cannot be loaded safely: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise MisconfigurationException(
            f"Expected a state_dict (names and tensors) at --model.pretrained, but {file} holds something else. "
            "Save it with torch.save(network.state_dict(), file)."
        )
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in loaded):  # whatever lies beside the network is not its own
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items() if name.startswith(prefix)}

    own = network.state_dict()
    matched = {name: value for name, value in loaded.items() if name in own and own[name].shape == value.shape}
    mismatched = [name for name in loaded if name in own and name not in matched]
    summary = [f"{len(matched)} of the network's {len(own)} tensors loaded from {file}"]
    if mismatched:
        shapes = (f"{name} is {tuple(loaded[name].shape)}, not {tuple(own[name].shape)}" for name in mismatched)
        summary.append(f"{len(mismatched)} of another shape ({', '.join(shapes)})")
    for what, names in (
        ("not in the file", [name for name in own if name not in loaded]),
        ("not in the network", [name for name in loaded if name not in own]),
    ):
        if names:
            summary.append(f"{len(names)} {what} ({', '.join(names)})")
    if not matched or (whole and len(matched) < len(own)):
        raise MisconfigurationException(
            f"Expected weights of {type(network).__name__} at --model.pretrained, but got {'; '.join(summary)}."
        )
    network.load_state_dict(matched, strict=False)
    rank_zero_info("; ".join(summary) + ".")
