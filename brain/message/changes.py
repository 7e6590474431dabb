"""
Messages about any watched table, and those that were published.

Source: docs/protocol.md, "Other channels".
"""

from __future__ import annotations

from typing import Any, Literal

import orjson

from brain.message.event import Event, Operation
from brain.message.times import iso_milliseconds
from brain.message.wire_model import Timestamp, WireModel

TYPES = {
    Operation.INSERT: "inserted",
    Operation.UPDATE: "updated",
    Operation.DELETE: "deleted",
    Operation.TRUNCATE: "truncated",
}


class Message(WireModel):
    """A row was added, changed or deleted, a table was emptied, or something was published."""

    type: str
    data: Any
    timestamp: Timestamp


class Row(WireModel):
    """Which row of which table is meant."""

    channel: str
    key: list[Any]
    """The values of its primary key."""


class Left(WireModel):
    """A row does not match the filter any more with which a client asked for it."""

    type: Literal["left"] = "left"
    data: Row
    timestamp: Timestamp


def row_of(event: Event) -> Row:
    """Return what is told of a row that leaves a filter, whatever the wire format."""
    return Row(channel=event.channel, key=event.key or [])


def message_of(event: Event) -> str | None:
    """
    Return the `Message` that tells of `event`; None for a row that is gone meanwhile.

    Without making one: where messages are rare that takes longer than to send it to ten clients.
    """
    told = type_and_data(event)
    if told is None:
        return None
    type, data = told
    message = {"type": type, "data": data, "timestamp": iso_milliseconds(event.at)}
    return orjson.dumps(message).decode()


def type_and_data(event: Event) -> tuple[str, Any] | None:
    """Return what is told of `event`; None for a row that is gone meanwhile."""
    if event.operation is Operation.PUBLISH:
        assert event.type is not None
        return event.type, event.data
    type = event.type or f"{event.channel}_{TYPES[event.operation]}"
    if event.operation is Operation.TRUNCATE:
        return type, {}
    data = row_now(event)
    return None if data is None else (type, data)


def row_now(event: Event) -> dict[str, Any] | None:
    """Return the row that `event` tells of, a deleted one as it was; None if it is not known."""
    row: dict[str, Any] | None = event.old if event.operation is Operation.DELETE else event.data
    return row


def row_before(event: Event) -> dict[str, Any] | None:
    """
    Return the row as it was before `event`; None if there was none.

    A row that changes its id is new under that one: the log has it as deleted under the other.
    """
    old = event.old or {}
    if event.operation is Operation.DELETE:
        return old
    if event.operation is Operation.INSERT or "id" in old:
        return None
    return {**(event.data or {}), **old}
