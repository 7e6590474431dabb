"""What the models of all messages have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from brain.message.timestamps import iso_milliseconds, parse_timestamp

Timestamp = Annotated[
    datetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")
]
"""A moment, printed as `2026-02-06T01:30:00.000Z`."""

ColumnTimestamp = Annotated[
    Timestamp | None,
    BeforeValidator(lambda value: parse_timestamp(value) if isinstance(value, str) else value),
]
"""A timestamp that PostgreSQL wrote into JSON."""


class WireModel(BaseModel):
    """A message, or a part of one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )
