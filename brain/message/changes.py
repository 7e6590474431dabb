"""
Messages about any watched table, and those that were published.

Source: docs/protocol.md, "Other channels".
"""

from __future__ import annotations

from typing import Any

from brain.message.event import Event, Operation
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


def message_of(event: Event) -> Message | None:
    """Return what is told of `event`; None for a row that is gone meanwhile."""
    if event.operation is Operation.PUBLISH:
        assert event.type is not None
        return Message(type=event.type, data=event.data, timestamp=event.at)
    type = event.type or f"{event.channel}_{TYPES[event.operation]}"
    if event.operation is Operation.TRUNCATE:
        return Message(type=type, data={}, timestamp=event.at)
    data = event.old if event.operation is Operation.DELETE else event.data
    return None if data is None else Message(type=type, data=data, timestamp=event.at)
