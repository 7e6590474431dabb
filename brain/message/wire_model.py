"""What the models of all messages have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, WithJsonSchema

from brain.errors import RowNotShown
from brain.message.timestamps import iso_milliseconds

Timestamp = Annotated[
    datetime,
    PlainSerializer(iso_milliseconds, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A moment, printed as `2026-02-06T01:30:00.000Z`."""


class WireModel(BaseModel):
    """A message, or a part of one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> Self:
        """Return the model with these values of a row. Raises `RowNotShown`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"][:1]))
            raise RowNotShown(f"{name}: {first['msg']}") from error

    @classmethod
    def check_row(cls, values: Mapping[str, Any]) -> None:
        """
        Raise `RowNotShown` if one of these values of a row is None, and must not be.

        Each has the type of its field, or is None: so what the model would print need not be made
        by it, which takes longer than all the rest of a message.
        """
        for name in never_null(cls):
            if values[name] is None:
                cls.from_row(values)


@cache
def never_null(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the fields that cannot be None."""
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if not allows_none(field.annotation))


def allows_none(annotation: Any) -> bool:
    return annotation is Any or NoneType in get_args(annotation)


def models_in(union: Any) -> list[type[BaseModel]]:
    """Return the models in a union, and in the unions that it has."""
    if isinstance(union, type):
        return [union] if issubclass(union, BaseModel) else []
    arguments = get_args(union)
    if get_origin(union) is Annotated:
        arguments = arguments[:1]
    return [model for one in arguments for model in models_in(one)]
