"""Describe the configs of ``fit`` as a JSON schema, with which editors complete and check them."""

import importlib
import inspect
import json
import pkgutil
import re
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

from jsonargparse._completions_jsonschema import ParserJsonschema
from jsonargparse._typehints import get_all_subclass_paths, is_protocol
from jsonargparse._util import get_import_path, import_object
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import callbacks
import datamodules
import lightning_modules
import lightning_modules.optim
from project.cli.cli import CLI
from project.cli.named_callbacks import default_callbacks
from project.cli.parser import LINKED

KNOWN: dict[Any, str] = {  # import paths of the classes whose arguments are described
    LightningModule: r"lightning_modules\.(?!ImageModule|optim)",
    LightningDataModule: r"datamodules\.",
    Callback: r"callbacks\.(?!base)|lightning\.pytorch\.callbacks\.(?!Lambda)",
    Optimizer: r"lightning_modules\.optim\.|torch\.optim\.",
    LRScheduler: r"lightning_modules\.optim\.|torch\.optim\.lr_scheduler\.",
    nn.Module: r"torch\.nn\.\w+Loss$",
}
WIDTHS = (["num_classes"], ["code_size"])  # the first argument of a network
ANY_CLASS = {"type": ["string", "object"]}
HAS_CLASS = {"type": "object", "required": ["class_path"]}


class PrintSchema(CLI):
    """``fit`` that prints the schema of its configs instead of parsing them."""

    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        for package in (callbacks, datamodules, lightning_modules):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):  # including the user's own
                importlib.import_module(module.name)
        print(json.dumps(Schema().generate(self._parser("fit")), indent=0))  # indentation would be a fifth of its size
        raise SystemExit(0)


class Schema(ParserJsonschema):
    """jsonargparse's schema, in the draft that all editors read, for complete configs and for overlays.

    No key is required, because another file may have it. The import path of a known class selects its arguments; any
    other class may have any arguments.
    """

    def generate(self, parser: Any) -> dict[str, Any]:
        """Return the schema of a parser's configs."""
        schema = super().generate(parser)
        named = schema["properties"]["callbacks"]
        entry = {"type": ["object", "string", "boolean", "null"]}
        named |= {"type": ["object", "boolean", "null"]}
        named["additionalProperties"] = {**entry, "if": {"type": "object"}, "then": {"$ref": "#/$defs/Callback"}}
        for name, default in default_callbacks().items():
            path = default["class_path"]
            named["properties"][name] = {**entry, "if": HAS_CLASS, "then": {"$ref": "#/$defs/Callback"}}
            if path in self.defs:  # without a class, its arguments
                inner = {"init_args": {"$ref": f"#/$defs/{path}/properties/init_args"}, **self._arguments(path)}
                named["properties"][name] |= {"else": {"properties": inner, "additionalProperties": False}}
                named["properties"][name]["description"] = self.defs[path].get("description", path)
        schema["patternProperties"] |= {r"\.": {}}  # such as `trainer.max_epochs: 3`
        return schema | {"$schema": "http://json-schema.org/draft-07/schema#"}

    def add_properties(self, parser: Any, schema: dict[str, Any]) -> None:
        """Add the options of a parser, none of which is required."""
        super().add_properties(parser, schema)
        _make_optional(schema)

    def action_schema(self, action: Any, required: bool, consts: list[Any] | None) -> dict[str, Any]:
        """Return the schema of an option, with the first sentence of its description, and with all values in a list."""
        schema = super().action_schema(action, required, consts)
        if "description" in schema:
            schema["description"] = re.split(r"(?<=\.)\s", " ".join(schema["description"].split()))[0]
        choices = schema.get("anyOf", [])
        if choices and all(choice == {"type": "null"} or "enum" in choice for choice in choices):  # one list of values
            schema["enum"] = [value for choice in schema.pop("anyOf") for value in choice.get("enum", [None])]
        return schema

    def typehint_schema(self, typehint: Any, action: Any) -> dict[str, Any]:
        if typehint is type:  # jsonargparse cannot list its subclasses
            return {"type": "string"}
        if is_protocol(typehint):
            return self._choice(typehint.__name__, _returning(typehint.__call__.__annotations__["return"]), action)
        return super().typehint_schema(typehint, action)

    def tuple_schema(self, typehint: Any, action: Any) -> dict[str, Any]:
        schema = super().tuple_schema(typehint, action)
        items = schema.pop("prefixItems", None)  # its name in later drafts
        return schema if items is None else schema | {"items": items, "maxItems": len(items)}

    def callable_schema(self, typehint: Any, action: Any) -> dict[str, Any]:
        """Return the schema of a function, or of a class that is called with its first argument."""
        returned = get_args(typehint)[-1] if get_args(typehint) else None
        bases = get_args(returned) if get_origin(returned) in (Union, UnionType) else (returned,)
        if nn.Module in bases:
            others = get_all_subclass_paths(LightningModule)
            modules = [path for path in get_all_subclass_paths(nn.Module) if re.match(r"lightning_modules\.", path)]
            networks = [path for path in modules if path not in others and _parameters(path)[:1] in WIDTHS]
            return self._choice("Network", networks, action, 1)
        for base in bases:
            if base in KNOWN:
                return self._choice(base.__name__, _known(base), action, 1)
        return self._choice(f"Function_{getattr(returned, '__name__', '')}", _returning(returned), action)

    def class_ref(self, class_type: Any, action: Any, subclass: bool) -> dict[str, Any]:
        """Return a reference to the schema of a class, or of the choice of a subclass."""
        if not subclass:
            return super().class_ref(class_type, action, subclass)
        return self._choice(self.def_name(class_type), _known(class_type), action)

    def _choice(self, name: str, paths: list[str], action: Any, skip: int = 0) -> dict[str, Any]:
        """Return a reference to the schema of an import path, or of ``class_path`` and ``init_args``.

        It describes the arguments of the classes at ``paths``, except the first ``skip``, which are no settings.
        """
        if not paths:
            return ANY_CLASS
        reference = {"$ref": f"#/$defs/{name}"}
        if name in self.defs:
            return reference
        choice = self.defs[name] = {}  # before its classes, which may have arguments of the same type
        cases: list[dict[str, Any]] = []
        for path in paths:
            self.defs[path] = self.class_path_schema(path, action)
            self.defs[path]["properties"].pop("dict_kwargs")
            _make_optional(self.defs[path])
            for hidden in LINKED if name == "LightningModule" else _parameters(path)[:skip]:
                self._arguments(path).pop(hidden, None)
            condition = HAS_CLASS | {"properties": {"class_path": {"const": path}}}
            cases.append({"if": condition, "then": {"$ref": f"#/$defs/{path}"}})
        if name in ("LightningModule", "LightningDataModule"):  # arguments in an overlay, whose class is in a recipe
            together = {key: value for path in paths for key, value in self._arguments(path).items()}
            overlay = {"properties": {"init_args": {"type": "object", "properties": together}}}
            cases.append({"if": HAS_CLASS, "else": overlay})
        known = [{"enum": paths}, {"type": "string"}]  # the first one is for completion
        choice |= {"anyOf": [*known, {"type": "object"}], "properties": {"class_path": {"anyOf": known}}}
        choice["allOf"] = cases
        return reference

    def _arguments(self, path: str) -> dict[str, Any]:
        """Return the schemas of the arguments of a class by name."""
        return self.defs[path]["properties"]["init_args"].setdefault("properties", {})


def _make_optional(schema: dict[str, Any]) -> None:
    """Remove what jsonargparse requires, and allow ``name+``, which appends to a list, also in groups of options."""
    schema.pop("required", None)
    schema["properties"].pop("$schema", None)
    schema["patternProperties"] = {r"\+$": {}}
    for inner in schema["properties"].values():
        if inner.get("type") == "object" and "properties" in inner:
            _make_optional(inner)


def _parameters(path: str) -> list[str]:
    return list(inspect.signature(import_object(path)).parameters)


def _known(base: Any) -> list[str]:
    """Return the import paths of the subclasses of a class whose arguments are described."""
    paths = get_all_subclass_paths(base) if base in KNOWN else []
    return [path for path in paths if re.match(KNOWN[base], path)]


def _returning(kind: Any) -> list[str]:
    """Return the import paths of this project's classes that are functions with a type of result."""
    exported = {**vars(datamodules), **vars(lightning_modules.optim)}.values()
    calls = {cls: vars(cls).get("__call__") for cls in exported if inspect.isclass(cls)}
    return [str(get_import_path(cls)) for cls, call in calls.items() if call and call.__annotations__["return"] == kind]
