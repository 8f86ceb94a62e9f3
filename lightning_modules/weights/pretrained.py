"""Load weights into a network, and report which tensors match."""

from collections import OrderedDict
from itertools import accumulate, takewhile
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich import print as rich_print
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from lightning_modules.weights.safe_load import LoadError, load_safely

NESTED = ("state_dict", "model_state_dict", "model", "net")  # keys of a state_dict in checkpoints; Lightning's first
WRAPPERS = ("network", "model", "net", "module", "_orig_mod")  # of attributes, DataParallel, averages, torch.compile
LIMIT = 8  # maximum number of names in a list


def load_weights(network: nn.Module, weights: dict[str, Any], source: str, whole: bool = False) -> None:
    """Load all tensors whose name and shape match a network, and print a table of all others.

    Prefixes of wrappers in names, such as "network." or "module._orig_mod.", are removed if more names match without
    them.

    Raises:
        MisconfigurationException: Nothing matches (with ``whole``, for evaluation: not everything matches), or
            ``source``, a file or a name, has weights of another network.
    """
    current = network.state_dict()
    prefix = _prefix(weights, current)
    comparison = compare(current, weights, prefix)
    matches = comparison["loaded"]
    title = f"{len(matches)} of the network's {len(current)} tensors loaded from {source}"
    # a head, a stem and a position embedding may differ, and a few layers may be new; ResNet-34 has 96 more than -18
    limits = {"mismatched": max(4, len(current) // 10), "missing in the file": max(8, len(current) // 4)}
    is_other = any(len(comparison[result]) > limit for result, limit in limits.items())
    if not matches or is_other or (whole and len(matches) < len(current)):
        del comparison["loaded"]
        raise MisconfigurationException(
            f"Expected weights of {type(network).__name__} at --model.pretrained, with at most {limits['mismatched']} "
            f"tensors of another shape and {limits['missing in the file']} missing, but got {title}; "
            f"{in_words(comparison)}."
        )
    matching = OrderedDict((name, weights[f"{prefix}{name}"]) for name in matches)
    matching._metadata = current._metadata  # type: ignore[attr-defined]  # versions of layers, which MNASNet requires
    network.load_state_dict(matching, strict=False)
    table = Table("pretrained", "tensors", "names", title=escape(title))
    for result, names in comparison.items():
        table.add_row(result, f"{len(names)}", escape(some(names)))
    rank_zero_only(rich_print)(table)


class LoadPretrained(Callback):
    """Load the weights ``pretrained`` of the module into its network once, unless a checkpoint replaces them."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.pretrained is not None and trainer.ckpt_path is None:
            whole = trainer.state.fn != TrainerFn.FITTING
            if trainer.local_rank:  # one process of each machine downloads, and the others find the file
                trainer.strategy.barrier()
            weights, source = pl_module.pretrained_weights()
            if not trainer.local_rank:
                trainer.strategy.barrier()
            load_weights(pl_module.network, weights, source, whole)
            pl_module.pretrained = None

    on_validation_start = on_test_start = on_predict_start = on_fit_start


def compare(own: dict[str, Any], loaded: dict[str, Any], prefix: str = "") -> dict[str, list[str]]:
    """Compare a network's state_dict with a loaded one, whose names have a prefix; return the names by result."""
    shapes, others = ({name: _shape(value) for name, value in weights.items()} for weights in (own, loaded))
    both = [name for name in own if f"{prefix}{name}" in loaded]
    equal = [name for name in both if shapes[name] == others[f"{prefix}{name}"]]
    used = {f"{prefix}{name}" for name in both}
    return {
        "loaded": equal,
        "mismatched": [f"{name} is {others[prefix + name]}, not {shapes[name]}" for name in both if name not in equal],
        "missing in the file": [name for name in own if name not in both],
        "unexpected in the file": [name for name in loaded if name not in used],
    }


def in_words(comparison: dict[str, list[str]]) -> str:
    """Return the result of ``compare`` as one line."""
    return "; ".join(f"{len(names)} {result} ({some(names)})" for result, names in comparison.items() if names)


def read_state_dict(file: str) -> dict[str, Any]:
    """Return the state_dict of a file of ``torch.save`` or .safetensors, or under a key of ``NESTED`` in it.

    Raises:
        MisconfigurationException: The file is missing or damaged, or does not contain a state_dict.
    """
    try:
        content = load_safely(file)
        for key in NESTED:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise LoadError(f"holds a {type(content).__name__}")
        if not any(isinstance(value, Tensor) for value in content.values()):
            raise LoadError(f"holds {some(list(content)) or 'nothing'}")
    except LoadError as error:
        raise MisconfigurationException(
            f"Expected a state_dict (names and tensors) at --model.pretrained, but {file} {error}. Save it with "
            "torch.save(network.state_dict(), file), or as .safetensors."
        ) from error
    return content


def _prefix(loaded: dict[str, Any], own: dict[str, Any]) -> str:
    """Return the prefix of wrappers without which most names match; of equally good ones, the shortest."""
    prefixes = {""}
    for name in loaded:
        wrappers = takewhile(WRAPPERS.__contains__, name.split("."))
        prefixes.update(accumulate(f"{wrapper}." for wrapper in wrappers))
    return max(sorted(prefixes, key=len), key=lambda prefix: sum(f"{prefix}{name}" in loaded for name in own))


def _shape(value: Any) -> tuple[int, ...] | str:
    """Return the shape of a tensor, or the type of another value."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def some(names: list[str]) -> str:
    """Return the first names, and the number of further ones."""
    return ", ".join(names[:LIMIT]) + (f", and {len(names) - LIMIT} more" if len(names) > LIMIT else "")
