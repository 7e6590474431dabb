"""A row of the log."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from brain.message.cursor import Cursor
from brain.message.json_text import key_text
from brain.message.row import Row

# By tracemalloc: of the dictionary of frames, and of what a frame takes beside its bytes.
CACHES_BYTES = 350
FRAME_BYTES = 100

NOTHING_CACHED = dict.fromkeys(("_frames", "_key_text", "_row", "_former"))


class Operation(Enum):
    """What happened; the values are those of `brain.events.operation`."""

    # That of Enum is a function in Python, called for each event that is counted.
    __hash__ = object.__hash__

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"
    PUBLISH = "P"
    RESET = "R"
    """What happened to the channel is not in the log: its clients load the state again."""


class Event(msgspec.Struct, gc=False, eq=False):
    """
    One change of one row, a TRUNCATE, a published message, or a reset.

    All subscribers share it, and nothing changes it but the caches at its end. JSON stays the text
    that PostgreSQL wrote, and is parsed only by what has to look inside.

    A ring holds many thousands of them, which the garbage collector does not visit: an event refers
    to nothing that could refer back to it.
    """

    tick: int
    nonce: int
    """Of the tick, as in a `Cursor`."""
    id: int
    at: datetime
    channel: str
    operation: Operation
    key: str | None
    """The values of the primary key, as a JSON array; None where no row is meant."""
    data: str | None
    """The watched columns as they are now, what was published, or the reason of a reset; JSON."""
    old: str | None
    """Of an updated or deleted row, the watched columns as they were before; JSON."""
    size_bytes: int
    """How much memory it takes, without its caches."""
    type: str | None = None
    """The type of its message, where that is given; otherwise the wire format decides."""
    recipient: str | None = None
    """The only user who gets it; None: all subscribers of the channel."""
    omitted: tuple[str, ...] = ()
    """The watched columns that the row lacks, because they are too large or unreadable."""
    rule_values: str | None = None
    """The columns by which row rules decide who may see the row, as JSON; no client gets them."""
    old_rule_values: str | None = None
    """Those of the row as it was before."""
    transaction_id: int = 0
    """The 64-bit id of the transaction that wrote it."""
    ends: int | None = None
    """If it is the last event of its transaction: the id of the first one, or less than that."""
    _frames: dict[Hashable, bytes | None] | None = None
    _key_text: str | None = None
    _row: Row | None = None
    _former: Row | None = None

    @property
    def cursor(self) -> Cursor:
        """The place after it."""
        return Cursor(self.tick, self.nonce, self.id)

    @property
    def place(self) -> tuple[int, int]:
        """The order of events of one history; see `Cursor.place`."""
        return self.tick, self.id

    def share(self, former: Event) -> None:
        """Refer to what equals a value of the event before it: it is in memory once."""
        if self.tick == former.tick:
            self.tick, self.nonce = former.tick, former.nonce
        if self.transaction_id == former.transaction_id:
            self.transaction_id = former.transaction_id
        if self.at == former.at:
            self.at = former.at
        if self.channel == former.channel:
            self.channel = former.channel
        if self.type == former.type:
            self.type = former.type

    @property
    def frames(self) -> dict[Hashable, bytes | None]:
        """Its message as a frame, per encoding; None where the wire format has none."""
        if self._frames is None:
            self._frames = {}
        return self._frames

    @property
    def key_text(self) -> str | None:
        """The name of the row in topics; None where no row is meant."""
        if self._key_text is None and self.key is not None:
            self._key_text = key_text(self.key)
        return self._key_text

    @property
    def row(self) -> Row | None:
        """The row after the event, a deleted one as it was; what was published; otherwise None."""
        if self._row is None and self.operation is not Operation.RESET:
            text = self.old if self.operation is Operation.DELETE else self.data
            self._row = None if text is None else Row(text)
        return self._row

    @property
    def former(self) -> Row | None:
        """The row before the event; None if there was none."""
        if self._former is None and self.old is not None:
            self._former = Row(self.old)
        return self._former

    @property
    def is_restricted(self) -> bool:
        """True if row rules decide who may see it."""
        return self.rule_values is not None or self.old_rule_values is not None

    def at_place(self, cursor: Cursor) -> Event:
        """Return the same event, at another place."""
        return self.with_values(tick=cursor.tick, nonce=cursor.nonce, id=cursor.event_id)

    def entering(self) -> Event:
        """Return the update as a client sees it that could not see the row before."""
        return self.with_values(operation=Operation.INSERT, old=None)

    def with_values(self, **values: Any) -> Event:
        """Return an event that differs in these values, and has nothing cached."""
        return replace(self, **{**NOTHING_CACHED, **values})

    @property
    def cached_bytes(self) -> int:
        """How much memory its caches take; 0 if there are none."""
        frames, row, former = self._frames, self._row, self._former
        size = 0
        if frames is not None:
            size = CACHES_BYTES + FRAME_BYTES * len(frames)
            for frame in frames.values():
                if frame is not None:
                    size += len(frame)
        if row is not None:
            size += row.cached_bytes
        if former is not None:
            size += former.cached_bytes
        return size

    def drop_caches(self) -> None:
        """Free what looking inside and rendering have cached."""
        self._frames = self._key_text = self._row = self._former = None

    def has_changed(self, column: str) -> bool:
        """Return True if a column of an updated row has another value, or may have."""
        row, former = self.row, self.former
        if row is None or former is None:
            return False
        # Of the former row, too, a value may have been left out.
        is_unknown = column in self.omitted or (column in row) != (column in former)
        return is_unknown or row.text(column) != former.text(column)

    def changed_columns(self) -> list[str]:
        """Return the watched columns of an updated row for which `has_changed` is true."""
        names = [] if self.row is None else [*self.row.names(), *self.omitted]
        return [name for name in names if self.has_changed(name)]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order in which they are sent, and the place after them."""

    events: tuple[Event, ...]
    cursor: Cursor
    follows: bool = True
    """True if it comes right after the batch before; otherwise what lay between is lost."""
    ticks: tuple[Cursor, ...] = ()
    """Where the first batch of all begins, and the ends of the ticks that it spans."""
    tick_at: datetime | None = None
    """When its tick was cut, by the clock of the database, where that is known."""
