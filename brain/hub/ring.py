"""The recent past, kept once for everybody."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from brain.message.cursor import Cursor
from brain.message.event import Batch, Event
from brain.message.latest import passing_subject

# Of so many ticks the nonce is remembered, so that a cursor which is in the ring can be recognised.
MOST_TICKS = 20_000


class Ring:
    """
    The latest events under numbers that count up by one, within a bound of bytes and of time.

    A client's whole queue is the number of the next event that it wants.
    """

    def __init__(self, capacity_bytes: int, capacity_seconds: float) -> None:
        self._capacity_bytes = capacity_bytes
        self._capacity_seconds = capacity_seconds
        self._events: list[Event] = []
        """Those before `_gone` are not there any more, and leave together now and then."""
        self._gone = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """When (in seconds) the events before a number had come."""
        self._nonces: dict[int, int] = {}
        """Of the ticks that the ring has seen, in their order."""
        self._newest: dict[str, int] = {}
        """The number of the newest passing event about a subject."""
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
        return self.first + len(self._events) - self._gone

    def append(self, batch: Batch, now: float) -> None:
        """Take in what follows, or the beginning of another history, at `now` in seconds."""
        if not batch.follows or self.cursor is None:
            self._begin_at(batch)
        for event in batch.events:
            subject = passing_subject(event)
            if subject is not None:
                self._newest[subject] = self.head
            self._events.append(event)
            self.held_bytes += event.size_bytes
            self._nonces[event.cursor.tick] = event.cursor.nonce
        for cursor in (*batch.ticks, batch.cursor):
            self._nonces[cursor.tick] = cursor.nonce
        self.cursor = batch.cursor
        if batch.events:
            self._arrivals.append((self.head, now))
        while len(self._nonces) > MOST_TICKS:
            del self._nonces[next(iter(self._nonces))]
        while self.held_bytes > self._capacity_bytes and self.head - self.first > 1:
            self._drop_oldest()
        self._tidy()

    def forget(self, now: float) -> None:
        """Drop what came too long before `now`."""
        while self._arrivals and self._arrivals[0][1] <= now - self._capacity_seconds:
            end, _ = self._arrivals.popleft()
            while self.first < end:
                self._drop_oldest()
        self._tidy()

    def since(self, number: int, most: int) -> Sequence[Event]:
        """Return up to `most` events from `number` on, which must not lie before `first`."""
        start = self._gone + number - self.first
        return self._events[start : start + most]

    def number_after(self, cursor: Cursor) -> int | None:
        """Return the number of the first event after `cursor`; None if the ring cannot tell."""
        if self._nonces.get(cursor.tick) != cursor.nonce or self._floor is None:
            return None
        if cursor.place < self._floor.place:
            return None
        index = bisect_right(
            self._events, cursor.place, lo=self._gone, key=lambda event: event.cursor.place
        )
        return self.first + index - self._gone

    def is_passed(self, event: Event, number: int) -> bool:
        """Whether a newer event here tells all that the one with this number is good for."""
        subject = passing_subject(event)
        return subject is not None and self._newest[subject] > number

    def _begin_at(self, batch: Batch) -> None:
        self.first = self.head
        self._events, self._gone = [], 0
        self._arrivals.clear()
        self._nonces, self._newest = {}, {}
        self.held_bytes = 0
        # Before the first events of a batch that begins it the ring knows nothing, unless told.
        self._floor = batch.ticks[0] if batch.ticks else batch.cursor

    def _drop_oldest(self) -> None:
        oldest = self._events[self._gone]
        subject = passing_subject(oldest)
        if subject is not None and self._newest[subject] == self.first:
            del self._newest[subject]
        self.held_bytes -= oldest.size_bytes
        self._floor = oldest.cursor
        self.first += 1
        self._gone += 1

    def _tidy(self) -> None:
        """Let go of the events that are gone, once they are as many as the others."""
        if self._gone > len(self._events) // 2:
            del self._events[: self._gone]
            self._gone = 0
