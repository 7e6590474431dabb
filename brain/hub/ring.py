"""The recent past, kept once for all clients."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence

from brain.message.cursor import Cursor
from brain.message.event import Batch, Event

# How many nonces are kept, to recognise cursors in the ring.
MOST_TICKS = 20_000
# Dropped events are removed together, since that moves all others: so many may wait for it,
# with so much memory.
MOST_GONE = 500
MOST_GONE_BYTES = 1024 * 1024


class Ring:
    """
    The latest events, numbered consecutively, within a limit of bytes and one of age.

    A client's whole queue is the number of the next event that it gets.
    """

    def __init__(self, capacity_bytes: int, capacity_seconds: float) -> None:
        self._capacity_bytes = capacity_bytes
        self._capacity_seconds = capacity_seconds
        self._events: list[Event] = []
        """Those before `_gone` are dropped already, and are removed together now and then."""
        self._gone = 0
        self._gone_bytes = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """When (in seconds) all events before a number had arrived."""
        self._nonces: OrderedDict[int, int] = OrderedDict()
        """Of the ticks that the ring has seen, in their order."""
        self._floor: Cursor | None = None
        """The place before the oldest event that is still here."""
        self.held_bytes = 0
        self.first = 0
        """The number of the oldest event that is still here."""
        self.head = 0
        """The number that the next event will get."""
        self.cursor: Cursor | None = None
        """The place after the newest event; None until the first batch."""

    def append(self, batch: Batch, now: float) -> None:
        """Add the next batch, or the first one of another history, at `now` in seconds."""
        if not batch.follows or self.cursor is None:
            self._begin_at(batch)
        for event in batch.events:
            if self._events:
                event.share(self._events[-1])
            self._events.append(event)
            self.held_bytes += event.size_bytes
            self._nonces[event.tick] = event.nonce
        self.head += len(batch.events)
        for cursor in (*batch.ticks, batch.cursor):
            self._nonces[cursor.tick] = cursor.nonce
        self.cursor = batch.cursor
        if batch.events:
            self._arrivals.append((self.head, now))
        while len(self._nonces) > MOST_TICKS:
            self._nonces.popitem(last=False)
        while self.held_bytes > self._capacity_bytes and self.head - self.first > 1:
            self._drop_oldest()
        self._compact()

    def expire(self, now: float) -> None:
        """Drop what is too old at `now`."""
        while self._arrivals and self._arrivals[0][1] <= now - self._capacity_seconds:
            end, _ = self._arrivals.popleft()
            while self.first < end:
                self._drop_oldest()
        self._compact()

    def age_seconds(self, now: float) -> float:
        """Return how long ago, at `now` in seconds, the oldest event has arrived; 0 without one."""
        return now - self._arrivals[0][1] if self._arrivals else 0.0

    def since(self, number: int, most: int) -> Sequence[Event]:
        """Return up to `most` events from `number` on, which must not lie before `first`."""
        start = self._gone + number - self.first
        return self._events[start : start + most]

    def number_after(self, cursor: Cursor) -> int | None:
        """Return the number of the first event after `cursor`; None if the ring does not know."""
        if self._nonces.get(cursor.tick) != cursor.nonce or self._floor is None:
            return None
        if cursor.place < self._floor.place:
            return None
        index = bisect_right(
            self._events, cursor.place, lo=self._gone, key=lambda event: event.place
        )
        return self.first + index - self._gone

    def _begin_at(self, batch: Batch) -> None:
        self.first = self.head
        self._events, self._gone, self._gone_bytes = [], 0, 0
        self._arrivals.clear()
        self._nonces = OrderedDict()
        self.held_bytes = 0
        # What lies before the first events of a history is known only if the batch says it.
        self._floor = batch.ticks[0] if batch.ticks else batch.cursor

    def _drop_oldest(self) -> None:
        oldest = self._events[self._gone]
        self.held_bytes -= oldest.size_bytes
        self._floor = oldest.cursor
        self.first += 1
        self._gone += 1
        self._gone_bytes += oldest.size_bytes

    def _compact(self) -> None:
        """Remove the dropped events once they are many, or take much memory."""
        if self._gone >= MOST_GONE or self._gone_bytes >= MOST_GONE_BYTES:
            del self._events[: self._gone]
            self._gone = self._gone_bytes = 0
