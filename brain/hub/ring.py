"""The recent past, kept once for everybody."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice

from brain.message.cursor import Cursor
from brain.message.event import Batch, Event

# Of so many ticks the nonce is remembered, so that a cursor which is in the ring can be recognised.
MOST_TICKS = 10_000


class Ring:
    """
    The latest events under numbers that count up by one, within a bound of bytes.

    A client's whole queue is the number of the next event that it wants.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._events: deque[Event] = deque()
        self._nonces: dict[int, int] = {}
        """Of the ticks that the ring has seen, in their order."""
        self._floor: Cursor | None = None
        """The place before the oldest event that is still here."""
        self.held_bytes = 0
        self.first = 0
        """The number of the oldest event that is still here."""
        self.cursor: Cursor | None = None
        """The place after the newest event; None as long as nothing was ever taken in."""

    @property
    def head(self) -> int:
        """The number that the next event will get."""
        return self.first + len(self._events)

    def append(self, batch: Batch) -> None:
        """Take in what follows, or the beginning of another history."""
        if not batch.follows or self.cursor is None:
            self._begin_at(batch)
        for event in batch.events:
            self._events.append(event)
            self.held_bytes += event.size_bytes
            self._nonces[event.cursor.tick] = event.cursor.nonce
        self.cursor = batch.cursor
        self._nonces[batch.cursor.tick] = batch.cursor.nonce
        while len(self._nonces) > MOST_TICKS:
            del self._nonces[next(iter(self._nonces))]
        while self.held_bytes > self._capacity_bytes and len(self._events) > 1:
            oldest = self._events.popleft()
            self.held_bytes -= oldest.size_bytes
            self.first += 1
            self._floor = oldest.cursor

    def since(self, number: int) -> Iterator[Event]:
        """Yield the events from `number` on, which must not lie before `first`."""
        return islice(self._events, number - self.first, None)

    def number_after(self, cursor: Cursor) -> int | None:
        """Return the number of the first event after `cursor`; None if the ring cannot tell."""
        if self._nonces.get(cursor.tick) != cursor.nonce or self._floor is None:
            return None
        if cursor.place < self._floor.place:
            return None
        return self.first + bisect_right(
            self._events, cursor.place, key=lambda event: event.cursor.place
        )

    def _begin_at(self, batch: Batch) -> None:
        self.first = self.head
        self._events.clear()
        self.held_bytes = 0
        # Before the first events of a batch that begins it the ring knows nothing.
        self._floor = batch.cursor
        self._nonces = {}
