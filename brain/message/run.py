"""Events that are delivered together, and which transactions end among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from brain.message.event import Event
from brain.message.matching import Match
from brain.message.topic_handle import TopicHandle


class Run:
    """
    Some consecutive events of the log.

    All events of a transaction lie in one tick. A run may begin or end within that: with a page of
    a large tick, with a chunk for a lagging client, or where a client has resumed.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.finished: set[int] = set()
        """The transactions of more than one event that end in it."""
        self.begun_before: dict[int, int] = {}
        """By the id of the event that ends it, each transaction that began before."""
        first: dict[int, int] = {}
        for event in events:
            ends, id = event.ends, event.id
            if ends == id:
                continue
            begins = first.setdefault(event.transaction_id, id)
            if ends is not None:
                self.finished.add(event.transaction_id)
                if ends != begins:
                    self.begun_before[id] = event.transaction_id


class MatchedRun:
    """Which topics the events of a run concern, and where transactions end for each of them."""

    def __init__(
        self,
        run: Run,
        events: Iterable[Event],
        matches: Callable[[Event], Sequence[tuple[TopicHandle, Match]]],
    ) -> None:
        """`events` are those of the run for which `matches` is asked."""
        self._matches: dict[int, Sequence[tuple[TopicHandle, Match]]] = {}
        # What is for one user alone counts as a transaction of its own: its neighbours get the
        # same bytes as everybody else.
        self.last: dict[tuple[int, str | None, TopicHandle], int] = {}
        """By transaction, recipient and topic, the id of the last event; not of lone ones."""
        self.undecided: set[int] = set()
        """The ids of events that are sent as a reset to some."""
        for event in events:
            found = matches(event)
            if not found:
                continue
            self._matches[event.id] = found
            is_finished = event.transaction_id in run.finished
            for handle, match in found:
                if match is Match.UNDECIDED:
                    self.undecided.add(event.id)
                if is_finished:
                    self.last[event.transaction_id, event.recipient, handle] = event.id

    def matches(self, event: Event) -> Sequence[tuple[TopicHandle, Match]]:
        """Return each topic that an event concerns, by its number, and how."""
        return self._matches.get(event.id, ())

    def is_last(self, event: Event, handle: TopicHandle) -> bool:
        """Return True if nothing of the transaction follows for the subscribers of a topic."""
        if event.ends == event.id:
            return True
        last = self.last.get((event.transaction_id, event.recipient, handle))
        return last == event.id


def whole_runs(events: Sequence[Event], least_bytes: int) -> Iterator[Sequence[Event]]:
    """Yield pieces of at least so many bytes, cut where no transaction goes on in the next one."""
    is_open: set[int] = set()
    start = size = 0
    for number, event in enumerate(events, start=1):
        size += event.size_bytes
        if event.ends is None:
            is_open.add(event.transaction_id)
        elif is_open:
            is_open.discard(event.transaction_id)
        if number == len(events) or (size >= least_bytes and not is_open):
            yield events[start:number]
            start, size = number, 0
