"""What looking into events has cached, within a limit of memory."""

from __future__ import annotations

from brain.message.event import Event

# The result of one filter for one event.
MATCH_BYTES = 100


class EventCaches:
    """
    Keeps the columns and the results of filters for the events that were looked into last.

    They are cached at the event for all clients that get it at about the same time, and take many
    times as much memory as its text. An event that is older is looked into anew when it is needed.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        self._events: dict[int, tuple[Event, int]] = {}
        """By `id`, each with the bytes that it counts: the one that was looked into last is the
        last."""

    def looked_into(self, event: Event) -> None:
        """Take note that `event` may have something cached; free what is too much."""
        if not event.has_caches:
            return
        _, before = self._events.pop(id(event), (event, 0))
        size = event.size_bytes + MATCH_BYTES * len(event.matches)
        self._events[id(event)] = event, size
        self._held_bytes += size - before
        while self._held_bytes > self._capacity_bytes:
            oldest, size = self._events.pop(next(iter(self._events)))
            oldest.drop_caches()
            self._held_bytes -= size
