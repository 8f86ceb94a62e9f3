"""Settings of runs: what their configs hold, and in what two of them differ. No torch in here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from project.record import RunError

CONFIG, RESULTS = "config.yaml", "results.json"
BEST, LAST = Path("checkpoints", "best.ckpt"), Path("checkpoints", "last.ckpt")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C's is seven times as fast
MISSING = "(not in this config)"
UNORDERED = "trainer.callbacks"  # a command line that a run goes on with appends there
EXPECTED = {
    "runs_dir": "where runs are kept",
    "run": "where runs are kept",
    "ckpt_path": "where a run goes on from",
    "data.init_args.root": "where the images are",
    "seed_everything": "repeats of a run differ in it",
    "test_after_fit": "what follows training",
    "report": "what follows training",
}


def load_config(folder: Path) -> dict[str, Any]:
    """Return the config of a run, or of a validation or test; nothing if its file is empty.

    Raises:
        RunError: It is not YAML.
    """
    try:
        config = yaml.load((folder / CONFIG).read_text(encoding="utf-8"), Loader=LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"Expected YAML in {folder / CONFIG}, but got: {' '.join(str(error).split())}.") from error
    return config if isinstance(config, dict) else {}


def setting(config: dict[str, Any], key: str) -> Any:
    """Return a value of a config by its dotted key, or None."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of a config.

    A class in a list is named by its class, not by its place: what the list holds is the order of its classes.
    """
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        seen: dict[str, int] = {}
        if prefix != UNORDERED and any("class_path" in one for one in value if isinstance(one, dict)):
            yield prefix, [one.get("class_path", one) if isinstance(one, dict) else one for one in value]
        for i, one in enumerate(value):
            name = str(one.get("class_path", i)) if isinstance(one, dict) else str(i)
            seen[name] = seen.get(name, 0) + 1
            yield from flatten(one, f"{prefix}.{name}" + (f"#{seen[name]}" if seen[name] > 1 else ""))
    else:
        yield prefix, value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the dotted keys in which two configs differ, with both values."""
    a, b = dict(flatten(one)), dict(flatten(other))
    keys = dict.fromkeys([*a, *b])
    pairs = ((key, _shown(a, key), _shown(b, key)) for key in keys)
    return [(key, left, right) for key, left, right in pairs if left != right]


def _shown(config: dict[str, Any], key: str) -> str:
    return str(config[key]) if key in config else MISSING
