"""Consecutive events on their way to the cohorts, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

from brain.hub.cohort import Cohort
from brain.hub.subscriber import Subscriber
from brain.hub.subscription_index import Matched, SubscriptionIndex, by_cohort
from brain.message.event import Event, Operation
from brain.message.run import Run

Concerned = tuple[set[Cohort], dict[Cohort, Matched]]
"""What `by_cohort` returns."""


class Delivery:
    """
    A run, and how its events concern the cohorts: looked up once, before its first piece is sent.

    So a message can say that it is the last one of a transaction whose other events come in a later
    piece and are for other clients.
    """

    def __init__(self, events: Sequence[Event], index: SubscriptionIndex) -> None:
        self.run = Run(events)
        self._events = events
        self._found = index.find(event for event in events if event.recipient is None)
        self._next = 0
        """The place in `_found` of what the next piece begins with."""
        self._encoders: dict[Cohort, Callable[[Event], Iterable[bytes]]] = {}

    def pieces(self, most_bytes: int) -> Iterator[Sequence[Event]]:
        """
        Yield events that are sent in one write each.

        They have one recipient, or none, and about so many bytes. What ends a transaction that
        began before the run is the last of its piece, and so is a reset: some clients get the rows
        after it, and nothing before.
        """
        events, start, size = self._events, 0, 0
        for number, event in enumerate(events, start=1):
            size += event.size_bytes
            if (
                number == len(events)
                or size >= most_bytes
                or events[number].recipient != event.recipient
                or event.id in self.run.begun_before
                or event.operation is Operation.RESET
            ):
                yield events[start:number]
                start, size = number, 0

    def concerned(self, piece: Sequence[Event]) -> Concerned:
        """Return the cohorts that a piece concerns; each piece is asked about once, in order."""
        if len(piece) == len(self._events):
            return self._all
        start = self._next
        for event in piece:
            if self._next < len(self._found) and self._found[self._next].event is event:
                self._next += 1
        return by_cohort(self._found[start : self._next])

    def encoder(self, cohort: Cohort) -> Callable[[Event], Iterable[bytes]]:
        """Return what yields the frames that a cohort gets for each event of the run."""
        found = self._encoders.get(cohort)
        if found is None:
            whole, parts = self._all
            events = (
                [event for event in self._events if event.recipient is None]
                if cohort in whole
                else [event for event, _ in parts[cohort]]
            )
            found = cohort.encoding.encoder(events, cohort.subscriptions, None, self.run)
            self._encoders[cohort] = found
        return found

    def private_encoder(self, subscriber: Subscriber) -> Callable[[Event], Iterable[bytes]]:
        """Return what yields the frames of the messages that are for a subscriber's user alone."""
        user = subscriber.user
        events = [event for event in self._events if event.recipient == user]
        return subscriber.encoding.encoder(events, subscriber.subscriptions, user, self.run)

    @cached_property
    def _all(self) -> Concerned:
        return by_cohort(self._found)
