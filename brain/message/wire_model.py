"""What the models of all messages have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

from brain.message.times import iso_milliseconds

Timestamp = Annotated[
    datetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")
]
"""A moment, printed as `2026-02-06T01:30:00.000Z`."""


class WireModel(BaseModel):
    """A message, or a part of one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )
