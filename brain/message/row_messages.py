"""
Messages about rows of any watched table, and published messages.

Source: docs/protocol.md, "Channels".
"""

from __future__ import annotations

from typing import Any, Literal

import orjson
from pydantic import Field

from brain.message.event import Event, Operation
from brain.message.wire_model import Timestamp, WireModel

TYPES = {
    Operation.INSERT: "inserted",
    Operation.UPDATE: "updated",
    Operation.DELETE: "deleted",
    Operation.TRUNCATE: "truncated",
}


class Message(WireModel):
    """A row was inserted, updated or deleted, a table was truncated, or something was published."""

    type: str
    data: Any
    timestamp: Timestamp
    omitted: list[str] = Field(default_factory=list)
    """The columns that `data` lacks, if there are any: too large, or unreadable."""


class RowReference(WireModel):
    """Which row of which channel."""

    channel: str
    key: list[Any]
    """The values of its primary key."""


class Left(WireModel):
    """A row no longer matches the filter of a subscription."""

    type: Literal["left"] = "left"
    data: RowReference
    timestamp: Timestamp


def row_reference(event: Event) -> dict[str, Any]:
    """Return a `RowReference` to the row that `event` is about, for `dumps`."""
    return {"channel": event.channel, "key": orjson.Fragment(event.key or "[]")}


def type_and_data(event: Event) -> tuple[str, str] | None:
    """Return the type and the JSON of the data of the message; None for a reset."""
    if event.operation is Operation.RESET:
        return None
    type = event.type
    if type is None:
        type = f"{event.channel}_{TYPES[event.operation]}"
    if event.operation is Operation.TRUNCATE:
        return type, "{}"
    data = event.old if event.operation is Operation.DELETE else event.data
    return type, data or "null"


def omitted(event: Event) -> dict[str, list[str]]:
    """Return the member of a message that names the columns which `data` lacks, if any."""
    return {"omitted": list(event.omitted)} if event.omitted else {}
