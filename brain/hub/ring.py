"""The recent past, kept once for everybody."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from brain.message.event import Event


class Ring:
    """
    The latest events under numbers that count up by one, within a bound of bytes.

    A client's whole queue is the number of the next event that it wants.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._events: deque[Event] = deque()
        self._held_bytes = 0
        self.first = 0
        """The number of the oldest event that is still here."""

    @property
    def head(self) -> int:
        """The number that the next event will get."""
        return self.first + len(self._events)

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def append(self, event: Event) -> None:
        self._events.append(event)
        self._held_bytes += event.size_bytes
        while self._held_bytes > self._capacity_bytes and len(self._events) > 1:
            self._held_bytes -= self._events.popleft().size_bytes
            self.first += 1

    def since(self, number: int) -> Iterator[Event]:
        """Yield the events from `number` on, which must not lie before `first`."""
        return islice(self._events, number - self.first, None)
