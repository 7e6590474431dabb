"""A row of the log."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from brain.message.cursor import Cursor
from brain.message.json_text import key_text
from brain.message.row import Row


class Operation(Enum):
    """What happened; the values are those of `brain.events.operation`."""

    INSERT = "I"
    UPDATE = "U"
    DELETE = "D"
    TRUNCATE = "T"
    PUBLISH = "P"
    RESET = "R"
    """What happened to the channel is not in the log: its clients load the state again."""


@dataclass(slots=True)
class Event:
    """
    One change of one row, a TRUNCATE, a published message, or a reset.

    All subscribers share it, and nothing changes it but the caches at its end. It is not frozen:
    creating a frozen one takes four times as long. JSON stays the text that PostgreSQL wrote, and
    is parsed only by what has to look inside.
    """

    cursor: Cursor
    """The place after it."""
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
    """How much memory it takes, roughly, with a frame of one encoding."""
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
    ends: int | None = field(default=None, compare=False)
    """If it is the last event of its transaction: the id of the first one, or less than that."""
    frames: dict[Hashable, bytes | None] = field(default_factory=dict, compare=False, repr=False)
    """Its message as a frame, per encoding; None where the wire format has none."""
    _key_text: str | None = field(default=None, init=False, compare=False, repr=False)
    _row: Row | None = field(default=None, init=False, compare=False, repr=False)
    _former: Row | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def id(self) -> int:
        return self.cursor.event_id

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

    def entering(self) -> Event:
        """Return the update as a client sees it that could not see the row before."""
        return replace(self, operation=Operation.INSERT, old=None, frames={})

    @property
    def has_caches(self) -> bool:
        return self._row is not None or self._former is not None

    def drop_caches(self) -> None:
        """Free what looking inside has cached: the columns."""
        self._row = self._former = None

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
