"""
The table `agents`, as every wire format reads it.

A row has one of six statuses. Some clients know whether an agent is there, others what it does:

    row                 shown       state
    idle, online        online      idle
    working             online      working
    stopped, offline    offline     stopped
    error               error       stopped
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from brain.message.changes import row_before, row_now
from brain.message.event import Event, Operation

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


def turn_of(event: Event) -> Shown | None:
    """Return how an agent is shown since `event`; None if it was shown so before."""
    if event.operation is Operation.DELETE:
        return "offline"
    row, before = row_now(event), row_before(event)
    if row is None:
        return None  # gone meanwhile, which a later event tells
    shown = SHOWN.get(row.get("status"))
    return None if before is not None and SHOWN.get(before.get("status")) == shown else shown
