"""Read, write and compare the configs of runs. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from project.errors import RunError
from project.runs.command_line import expand_home

CONFIG, RESULTS = "config.yaml", "results.json"
PREVIOUS_CONFIGS = "previous_configs"  # directory of the configs that a resumed run has replaced
BEST, LAST = Path("checkpoints", "best.ckpt"), Path("checkpoints", "last.ckpt")
STRING, FLOAT, DATE, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "float", "timestamp", "merge"))
EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")  # a string in PyYAML without a point and a sign
Keys = tuple[str, ...]
MISSING = "(not in this config)"
EXPECTED = {
    "runs_dir": "path of the runs",
    "run": "path of the runs",
    "name": "name of the run",
    "ckpt_path": "checkpoint to resume from",
    "data.init_args.root": "path of the images",
    "seed_everything": "differs between repeats",
    "data.init_args.fold": "differs between repeats",
    "test_after_fit": "applies after training",
    "report": "applies after training",
}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C loader is seven times as fast
    """Load YAML as jsonargparse does: ``1e-3`` is a float and ``2026-11-21`` a string. A leading ``~`` is expanded."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as in PyYAML
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Dumper(yaml.SafeDumper):
    """Dump YAML that ``Loader`` reads back: strings that look like numbers are quoted, enums are their values."""


Loader.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))
Loader.add_constructor(STRING, lambda loader, node: expand_home(loader.construct_scalar(node)))
Dumper.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))
Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str.__str__(text)))
Dumper.add_multi_representer(int, lambda dumper, number: dumper.represent_int(int(number)))
Dumper.add_multi_representer(float, lambda dumper, number: dumper.represent_float(float(number)))


def read_yaml(text: str, source: str = "the text") -> Any:
    """Return the content of a YAML or JSON document, which is called ``source`` in error messages.

    Raises:
        RunError: A mapping contains a key twice, and PyYAML would keep only one of the values.
        yaml.YAMLError: The document is not YAML.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Keys, int] = {}
        for path, line in key_lines(node):
            if path in lines:
                raise RunError(
                    f"Expected each key once, but {source} has {'.'.join(path)!r} in lines {lines[path]} and {line}. "
                    "Merge them."
                )
            for end in range(len(path)):  # jsonargparse also drops `a.b: 1` before `a: {c: 2}`
                lines.setdefault(path[: end + 1], line)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def key_lines(node: Any, path: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, int]]:
    """Yield the path and the line number, from 1, of each key below a YAML node.

    ``a.b: 1`` has the same path as ``a: {b: 1}``. The path of a list item contains its index. Nodes that an alias
    (``*a``) or a merge (``<<``) repeats are visited once.
    """
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = (*path, *key.value.split("."))
                if key.tag != MERGE:
                    yield inner, key.start_mark.line + 1
                yield from key_lines(value, inner, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from key_lines(item, (*path, str(i)), seen)


def write_yaml(data: Any) -> str:
    """Return plain data as YAML that ``read_yaml`` reads back."""
    return yaml.dump(data, Dumper=Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def load_config(folder: Path) -> dict[str, Any]:
    """Return the config of a run, or of a validation or test; an empty dict if its file is empty.

    Raises:
        RunError: The file is not YAML, or contains a key twice.
    """
    file = folder / CONFIG
    try:
        config = read_yaml(file.read_text(encoding="utf-8"), str(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"Expected YAML in {file}, but got: {' '.join(str(error).split())}.") from error
    return config if isinstance(config, dict) else {}


def setting(config: dict[str, Any], key: str) -> Any:
    """Return a value of a config by its dotted key, or None."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of a config; the key of a mapping in a list contains its index."""
    has_keys = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
    if not value or not has_keys:
        yield prefix, value
        return
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (dotted key, first value, second value) of each setting in which two configs differ."""
    a, b = dict(flatten(first)), dict(flatten(second))
    pairs = [(key, str(a.get(key, MISSING)), str(b.get(key, MISSING))) for key in dict.fromkeys([*a, *b])]
    return [(key, left, right) for key, left, right in pairs if left != right]


def is_class(value: Any) -> bool:
    """Return whether a value is the import path of a class."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) is not None


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest ends of dotted keys that differ from each other: "lr" for "model.optimizer.lr"."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names[key] = next(e for e in ends if e == key or not any(f".{k}".endswith(f".{e}") for k in keys if k != key))
    return names
