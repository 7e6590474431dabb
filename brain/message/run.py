"""Events that are delivered together, and which transactions end among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brain.message.event import Event


class Run:
    """
    Some consecutive events of the log.

    All events of a transaction lie in one tick. A run may begin or end within that: with a page of
    a large tick, with a chunk for a lagging client, or where a client has resumed.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.finished: set[int] = set()
        """The transactions that end in it."""
        self.begun_before: dict[int, int] = {}
        """By the id of the event that ends it, each transaction that began before."""
        first: dict[int, int] = {}
        for event in events:
            begins = first.setdefault(event.transaction_id, event.id)
            if event.ends is not None:
                self.finished.add(event.transaction_id)
                if event.ends != begins:
                    self.begun_before[event.id] = event.transaction_id


def whole_runs(events: Sequence[Event], least_bytes: int) -> Iterator[Sequence[Event]]:
    """Yield pieces of at least so many bytes, cut where no transaction goes on in the next one."""
    is_open: set[int] = set()
    start = size = 0
    for number, event in enumerate(events, start=1):
        size += event.size_bytes
        if event.ends is None:
            is_open.add(event.transaction_id)
        else:
            is_open.discard(event.transaction_id)
        if number == len(events) or (size >= least_bytes and not is_open):
            yield events[start:number]
            start, size = number, 0
