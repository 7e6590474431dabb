"""A row of the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from brain.message.cursor import Cursor


class Operation(Enum):
    """What happened; the values are those of `brain.events.operation`."""

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"
    PUBLISH = "P"


@dataclass(slots=True)
class Event:
    """
    One change of one row, the emptying of a table, or a message that was published.

    All who are told share it, and nobody changes it. It is not frozen: to make one would take four
    times as long.
    """

    cursor: Cursor
    """The place after it."""
    at: datetime
    channel: str
    operation: Operation
    key: list[Any] | None
    """The values of the primary key; None where no row is meant."""
    data: Any
    """The watched columns as they are now, or what was published; None once the row is gone."""
    old: dict[str, Any] | None
    """After an update, the former values of what changed; of a deleted row, all watched ones."""
    size_bytes: int
    """How much memory it takes, roughly, once it is rendered."""
    type: str | None = None
    """What its message is called, where that was said; otherwise the wire format decides."""
    audience: str | None = None
    """The user who alone is told; None if everybody on the channel is."""
    frames: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)
    """The event as a WebSocket frame, per wire format; None where the format does not tell it."""
    told: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """How it concerns each `Topic` with a filter that was asked about it."""

    @property
    def id(self) -> int:
        return self.cursor.event_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order in which they are told, and the place after them."""

    events: tuple[Event, ...]
    cursor: Cursor
    follows: bool = True
    """Whether it comes right after the batch before; if not, what lay between is lost."""
    ticks: tuple[Cursor, ...] = ()
    """Where the first batch of all begins, and the ends of the ticks that it goes through."""
