"""
Messages about rows of any watched table, and published messages.

Source: docs/protocol.md, "Channels".
"""

from __future__ import annotations

from typing import Any, Literal

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


def row_reference(event: Event) -> RowReference:
    """Return which row `event` is about."""
    return RowReference(channel=event.channel, key=event.key or [])


def render_left(event: Event) -> str:
    """Return the `Left` for `event` as JSON."""
    return Left(data=row_reference(event), timestamp=event.at).model_dump_json()


def type_and_data(event: Event) -> tuple[str, Any] | None:
    """Return the type and the data of the message; None for a row that is gone by now."""
    if event.operation is Operation.PUBLISH:
        assert event.type is not None
        return event.type, event.data
    type = event.type or f"{event.channel}_{TYPES[event.operation]}"
    if event.operation is Operation.TRUNCATE:
        return type, {}
    data = event.old if event.operation is Operation.DELETE else event.data
    return None if data is None else (type, data)


def row_after(event: Event) -> dict[str, Any] | None:
    """Return the row after `event`, a deleted one as it was; None if it is not known."""
    row: dict[str, Any] | None = event.old if event.operation is Operation.DELETE else event.data
    return row


def row_before(event: Event) -> dict[str, Any] | None:
    """
    Return the row as it was before `event`; None if there was none.

    After a change of its id a row is new: the log has it as deleted under the former id.
    """
    old = event.old or {}
    if event.operation is Operation.DELETE:
        return old
    if event.operation is Operation.INSERT or "id" in old:
        return None
    return {**(event.data or {}), **old}
