"""JSON Schema of models, each once, under a name that depends on its class alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import (
    CoreModeRef,
    CoreRef,
    DefsRef,
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema

from brain.description.attribute_docs import attribute_docs

TEMPLATE = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Schemas:
    """The schemas of models, and of all that they refer to."""

    references: dict[type[BaseModel], dict[str, Any]]
    """What stands for each model: `{"$ref": …}`."""
    definitions: dict[str, Any]


def schemas_of(
    sent: Iterable[type[BaseModel]], received: Iterable[type[BaseModel]] = ()
) -> Schemas:
    """
    Return the schemas of models that Brain serializes (`sent`) and validates (`received`).

    Raises `ValueError` if two models have the same name.
    """
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "serialization") for model in dict.fromkeys(sent)),
        *((model, "validation") for model in dict.fromkeys(received)),
    ]
    found, document = models_json_schema(modes, ref_template=TEMPLATE, schema_generator=Generator)
    references = {cast(type[BaseModel], one): reference for (one, _), reference in found.items()}
    return Schemas(references, document.get("$defs", {}))


def schema_name(module: str, name: str) -> str:
    """
    Return the name of a model in documents: with that of its package, if it is none of the core.

    So `ChannelsError` is that of the system `channels`, and `V1Error` that of brain.v1.
    """
    package, _, file = module.rpartition(".")
    if file.startswith("v1_"):
        return f"V1{name}"
    if module.startswith("brain.") and not module.startswith("brain.systems."):
        return name
    return camel_case(package.rpartition(".")[2] or file) + name


def camel_case(words: str) -> str:
    return "".join(word.capitalize() for word in re.split("[_-]", words))


class Generator(GenerateJsonSchema):
    """
    Makes schemas as the wire has them.

    What Brain sends lacks a key rather than having null or the default, and may have further keys
    in a later version.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._names: dict[str, CoreModeRef] = {}

    def get_defs_ref(self, core_mode_ref: CoreModeRef) -> DefsRef:
        reference, mode = core_mode_ref
        path, _, id = reference.rpartition(":")
        module, _, name = path.rpartition(".")
        found = schema_name(module, name)
        if self._names.setdefault(found, core_mode_ref) != core_mode_ref:
            raise ValueError(f"two models are named {found}: {path} is one")
        return super().get_defs_ref((CoreRef(f"{found}:{id}"), mode))

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "validation":
            return super().field_is_required(field, total)
        inner = field["schema"]
        return inner["type"] != "default" or is_constant(inner["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = schema["schema"]
        if inner["type"] == "nullable" and schema.get("default", ...) is None:
            if self.mode == "serialization":
                return self.generate_inner(inner["schema"])  # left out rather than null
        found = super().default_schema(schema)
        if found.get("default", ...) is None or is_constant(inner):
            del found["default"]
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return self._described(schema["cls"], super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return self._described(schema["cls"], super().dataclass_schema(schema))

    def _described(self, cls: type, found: JsonSchemaValue) -> JsonSchemaValue:
        if self.mode == "serialization" and found.get("additionalProperties") is False:
            del found["additionalProperties"]
        found["title"] = schema_name(cls.__module__, cls.__qualname__)
        docs = attribute_docs(cls)
        for name, one in found.get("properties", {}).items():
            one.pop("title", None)  # the name of the property again
            if name in docs:
                one.setdefault("description", docs[name])
        return found


def is_constant(schema: Any) -> bool:
    """Return True for a literal with one value, which every message has."""
    return bool(schema["type"] == "literal" and len(schema["expected"]) == 1)
