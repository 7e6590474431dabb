"""What looking into events and rendering them has cached, within a limit of memory."""

from __future__ import annotations

from collections import OrderedDict

from brain.message.event import Event


class EventCaches:
    """
    Keeps the columns and the frames of the events that were looked into last.

    They are cached at the event for all clients that get it at about the same time, and take many
    times as much memory as its text. An event that is older is looked into, and rendered, anew when
    it is needed.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held_bytes = 0
        # A dictionary would look for its first key past all that were removed.
        self._sizes: OrderedDict[Event, int] = OrderedDict()
        """What was cached when it was noted last; the event that was looked into last is last."""

    def looked_into(self, event: Event) -> None:
        """Take note that `event` may have something cached; free what is too much."""
        size = event.cached_bytes
        if not size:
            return
        sizes = self._sizes
        self._held_bytes += size - sizes.pop(event, 0)
        sizes[event] = size
        while self._held_bytes > self._capacity_bytes:
            oldest, size = sizes.popitem(last=False)
            self._held_bytes -= size
            oldest.drop_caches()
