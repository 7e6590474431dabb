"""Hands every event to whoever subscribed to its channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from brain.errors import HistoryLost, TooFarBehind
from brain.hub.ring import Ring
from brain.hub.subscriber import Subscriber
from brain.message.event import Batch
from brain.message.wire_format import WireFormat, frame


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

    @contextmanager
    def subscribed(
        self, wire_format: WireFormat, channels: frozenset[str], wake: Callable[[], None]
    ) -> Iterator[Subscriber]:
        """Subscribe from the next event on, for as long as the context lasts."""
        subscriber = Subscriber(wire_format, channels, wake, self._ring.head)
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def deliver(self, batch: Batch) -> None:
        """Take a batch in and wake everybody."""
        if not batch.follows:
            for subscriber in self._subscribers:
                subscriber.ended = HistoryLost("messages were lost with a part of the log")
        for event in batch.events:
            self._ring.append(event)
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
        subscriber.position += len(events)
        frames = (
            frame(event, subscriber.wire_format)
            for event in events
            if event.channel in subscriber.channels
        )
        return [text for text in frames if text is not None]

    def is_behind(self, subscriber: Subscriber) -> bool:
        """Whether there is something that `subscriber` has not looked at."""
        return subscriber.position < self._ring.head or subscriber.ended is not None

    def statistics(self) -> HubStatistics:
        return HubStatistics(len(self._subscribers), self._ring.head, self._ring.held_bytes)
