"""Hands every event to whoever subscribed to its channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from brain.errors import HistoryLost, NotReady, TooFarBehind
from brain.hub.ring import Ring
from brain.hub.subscriber import Subscriber
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.message.wire_format import WireFormat, frame

# The position of a subscriber that is not fed from the ring yet.
OUTSIDE = -1


class HubStatistics(NamedTuple):
    subscribers: int
    events: int
    """Delivered to the hub since it was made."""
    ring_bytes: int


class Hub:
    """
    Knows who hears which channel, and keeps the recent events in one ring for all of them.

    Every method is an ordinary function. With no `await` between reading and writing, no other
    task can see the hub half changed and nothing needs a lock; and no client can hold up another,
    because none is ever waited for.
    """

    def __init__(self, ring_bytes: int) -> None:
        self._ring = Ring(ring_bytes)
        self._subscribers: set[Subscriber] = set()

    @property
    def cursor(self) -> Cursor:
        """The place after the newest event. Raises `NotReady` before anything was delivered."""
        if self._ring.cursor is None:
            raise NotReady("Brain does not follow the database yet")
        return self._ring.cursor

    @contextmanager
    def subscribed(
        self,
        wire_format: WireFormat,
        channels: frozenset[str],
        wake: Callable[[], None],
        after: Cursor | None = None,
    ) -> Iterator[Subscriber]:
        """
        Subscribe for as long as the context lasts: from the next event on, or `after` a cursor.

        In the latter case there is nothing to take before `resume` or `wait` was called.
        """
        position = self._ring.head if after is None else OUTSIDE
        subscriber = Subscriber(wire_format, channels, wake, position, after or self.cursor)
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def resume(self, subscriber: Subscriber) -> bool:
        """Go on after the subscriber's cursor if the ring reaches back to it; return whether."""
        number = self._ring.number_after(subscriber.cursor)
        if number is None:
            return False
        subscriber.position = number
        return True

    def wait(self, subscriber: Subscriber) -> None:
        """Go on after the subscriber's cursor, which this hub has not reached yet."""
        subscriber.position = self._ring.head

    def start_over(self, subscriber: Subscriber) -> None:
        """Go on with the next event, whatever lies before it."""
        subscriber.position, subscriber.cursor = self._ring.head, self.cursor
        subscriber.ended = None

    def deliver(self, batch: Batch) -> None:
        """Take a batch in and wake everybody."""
        if not batch.follows:
            for subscriber in self._subscribers:
                subscriber.ended = HistoryLost("messages were lost with a part of the log")
        self._ring.append(batch)
        if batch.events or not batch.follows:
            for subscriber in self._subscribers:
                subscriber.wake()

    def take(self, subscriber: Subscriber, most: int) -> list[str]:
        """
        Return what `subscriber` has not had yet, looking at no more than `most` events.

        It has had everything once its position is at the head. Raises `TooFarBehind` when the
        ring has moved on past its position, and `HistoryLost`.
        """
        if subscriber.ended is not None:
            raise subscriber.ended
        if subscriber.position < self._ring.first:
            raise TooFarBehind("the client reads more slowly than messages come")
        events = list(islice(self._ring.since(subscriber.position), most))
        told = subscriber.cursor.place
        frames = [
            frame(event, subscriber.wire_format)
            for event in events
            if event.channel in subscriber.channels and event.cursor.place > told
        ]
        subscriber.position += len(events)
        if events and events[-1].cursor.place > told:
            subscriber.cursor = events[-1].cursor
        return [text for text in frames if text is not None]

    def reached(self, subscriber: Subscriber) -> Cursor:
        """Return the place after all that `subscriber` has been told, or had not to be."""
        at_head = subscriber.position == self._ring.head
        ahead = subscriber.cursor.place > self.cursor.place
        return self.cursor if at_head and not ahead else subscriber.cursor

    def is_behind(self, subscriber: Subscriber) -> bool:
        """Whether there is something that `subscriber` has not looked at."""
        return subscriber.position < self._ring.head or subscriber.ended is not None

    def statistics(self) -> HubStatistics:
        return HubStatistics(len(self._subscribers), self._ring.head, self._ring.held_bytes)
