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
    One change of one row, a TRUNCATE, or a published message.

    All subscribers share it, and nothing changes it but the caches at its end. It is not frozen:
    creating a frozen one takes four times as long.
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
    """How much memory it takes, roughly, with a frame of one encoding."""
    type: str | None = None
    """The type of its message, where that is given; otherwise the wire format decides."""
    recipient: str | None = None
    """The only user who gets it; None: all subscribers of the channel."""
    frames: dict[str, bytes | None] = field(default_factory=dict, compare=False, repr=False)
    """Its message as a frame, per encoding; None where the wire format has none."""
    matches: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Whether it matches each `Topic` with a filter that was asked so far."""

    @property
    def id(self) -> int:
        return self.cursor.event_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order in which they are sent, and the place after them."""

    events: tuple[Event, ...]
    cursor: Cursor
    follows: bool = True
    """True if it comes right after the batch before; otherwise what lay between is lost."""
    ticks: tuple[Cursor, ...] = ()
    """Where the first batch of all begins, and the ends of the ticks that it spans."""
