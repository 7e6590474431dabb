"""
The table `agents`, as every wire format reads it.

A row has one of six statuses. Some clients show whether an agent is online, others what it does:

    row                 shown       state
    idle, online        online      idle
    working             online      working
    stopped, offline    offline     stopped
    error               error       stopped
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from brain.message.event import Event, Operation
from brain.message.row import Row

CHANNEL = "agents"

Shown = Literal["online", "offline", "error"]
State = Literal["idle", "working", "stopped"]

SHOWN: Mapping[Any, Shown] = {
    "idle": "online",
    "working": "online",
    "online": "online",
    "stopped": "offline",
    "offline": "offline",
    "error": "error",
}
STATES: Mapping[Any, State] = {
    "idle": "idle",
    "online": "idle",
    "working": "working",
    "stopped": "stopped",
    "offline": "stopped",
    "error": "stopped",
}


def changed_status(event: Event) -> Shown | Literal["unknown"] | None:
    """Return the shown status if this event changed it, else None. Raises `RowNotShown`."""
    if event.operation is Operation.DELETE:
        return "offline"
    if event.row is None:
        return None
    shown, before = shown_status(event.row), row_before(event)
    return None if before is not None and shown_status(before) == shown else shown


def shown_status(row: Row) -> Shown | Literal["unknown"]:
    return SHOWN.get(row.string("status"), "unknown")


def row_before(event: Event) -> Row | None:
    """Return the row as it was; None for one that is new, which it is under a new id."""
    return None if event.has_changed("id") else event.former
