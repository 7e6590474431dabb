"""Consecutive events on their way to the cohorts, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from brain.hub.cohort import Addressed, SubscriptionCohort
from brain.hub.subscriber import Subscriber
from brain.hub.topic_index import TopicIndex
from brain.message.event import Event, Operation
from brain.message.run import MatchedRun, Run, whole_runs


class Delivery:
    """
    A run, of which each topic with a number is looked up once, before the first piece is sent.

    So a message can say that it is the last one of a transaction whose other events come in a later
    piece and are for other clients.
    """

    def __init__(self, events: Sequence[Event], topics: TopicIndex) -> None:
        self._events = events
        self._topics = topics
        self._run = self._matched = None
        self.ended: Mapping[int, int] = {}
        """What `Run.begun_before` is, if a client is to know it."""
        if topics:
            self._run = Run(events)
            self.ended = self._run.begun_before
            public = (event for event in events if event.recipient is None)
            self._matched = MatchedRun(self._run, public, topics.handles.matches)

    def pieces(self, most_bytes: int) -> Iterator[Sequence[Event]]:
        """
        Yield events that are sent in one write each.

        They have one recipient, or none, and about so many bytes. What ends a transaction that
        began before the run is the last of its piece, and so is a reset: some clients get the rows
        after it, and nothing before.
        """
        events, ended, start, size = self._events, self.ended, 0, 0
        undecided = self._matched.undecided if self._matched is not None else ()
        for number, event in enumerate(events, start=1):
            size += event.size_bytes
            if (
                number == len(events)
                or size >= most_bytes
                or events[number].recipient != event.recipient
                or (ended and event.id in ended)
                or event.operation is Operation.RESET
                or (undecided and event.id in undecided)
            ):
                yield events[start:number]
                start, size = number, 0

    def addressed(self, piece: Sequence[Event]) -> Mapping[SubscriptionCohort, list[Addressed]]:
        """Return what cohorts get of a piece; its events have no recipient."""
        return {} if self._matched is None else self._topics.address(piece, self._matched)

    def private_frames(self, piece: Sequence[Event], subscriber: Subscriber) -> list[bytes]:
        """Return the frames of a piece that is for a subscriber's user alone."""
        user = subscriber.user
        events = piece
        if self._run is not None:
            events = [event for event in self._events if event.recipient == user]
        encode = subscriber.encoding.encoder(events, subscriber.subscriptions, user, self._run)
        return [frame for event in piece for frame in encode(event)]


def deliveries(events: Sequence[Event], topics: TopicIndex, least_bytes: int) -> Iterator[Delivery]:
    """Yield runs of at least so many bytes; where no topic has a number, all events are one."""
    for run in whole_runs(events, least_bytes) if topics else (events,):
        yield Delivery(run, topics)
