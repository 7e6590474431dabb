"""What looking into events has cached, within a limit of memory."""

from __future__ import annotations

from brain.message.event import Event


class EventCaches:
    """
    Keeps the columns of the events that were looked into last.

    They are cached at the event for all clients that get it at about the same time, and take many
    times as much memory as its text. An event that is older is looked into anew when it is needed.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        self._events: dict[int, Event] = {}
        """By `id`: the one that was looked into last is the last."""

    def looked_into(self, event: Event) -> None:
        """Take note that `event` may have something cached; free what is too much."""
        if not event.has_caches:
            return
        if self._events.pop(id(event), None) is None:
            self._held_bytes += event.size_bytes
        self._events[id(event)] = event
        while self._held_bytes > self._capacity_bytes:
            oldest = self._events.pop(next(iter(self._events)))
            oldest.drop_caches()
            self._held_bytes -= oldest.size_bytes
