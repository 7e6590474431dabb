"""What was delivered of ticks that a crash of PostgreSQL may take back."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import NamedTuple

from brain.database.log import NewestBatch
from brain.message.cursor import Cursor

# How many batches may be delivered of which it is not known that they are on the disk.
MOST_DELIVERED = 100


class Delivered(NamedTuple):
    """What was delivered up to a place in the log."""

    cursor: Cursor
    written: int | None
    """See `NewestBatch`."""
    events: tuple[tuple[int, datetime], ...]
    """The id of each event, and when it was written: another event may get the id of a lost one."""


class Unflushed:
    """
    Knows the last place of the log that a crash leaves, and what was delivered beyond it.

    Events are delivered only once they are on the disk, but their tick may reach it later: what
    comes after `safe` may be read again, under the numbers of other ticks.
    """

    def __init__(self) -> None:
        self.safe: Cursor | None = None
        """Everything up to here survives a crash; None: no such place is known yet."""
        self._delivered: deque[Delivered] = deque()

    @property
    def needs_flush(self) -> bool:
        """True if a tick was committed without waiting for the disk, and may not be there yet."""
        return any(one.written is None for one in self._delivered)

    @property
    def is_full(self) -> bool:
        """True if no more should be delivered before a flush."""
        return len(self._delivered) >= MOST_DELIVERED

    def deliver(self, batch: NewestBatch) -> None:
        """Note a batch that is about to be delivered."""
        events = tuple([(event.id, event.at) for event in batch.events])
        self._delivered.append(Delivered(batch.cursor, batch.written, events))

    def flushed(self, position: int | None = None) -> None:
        """Note that everything up to a position of the WAL is on the disk; None: all of it."""
        count = 0
        for number, one in enumerate(self._delivered, start=1):
            if position is None or (one.written is not None and one.written <= position):
                count = number
        for _ in range(count):
            self.safe = self._delivered.popleft().cursor

    def events(self) -> dict[int, datetime]:
        """Return the events that were delivered beyond `safe`: when each was written, by id."""
        return {id: at for one in self._delivered for id, at in one.events}
