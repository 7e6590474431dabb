"""Which events in the ring are superseded by newer ones, for lagging clients that skip those."""

from __future__ import annotations

from collections.abc import Callable

from brain.hub.event_caches import EventCaches
from brain.hub.ring import Ring
from brain.message.event import Event

# How many keys of events that have left the ring may be kept beside those in it.
STALE_KEYS = 10_000


class Conflation:
    """An index of the newest event per superseded key, built only once a client asks for it."""

    def __init__(
        self,
        ring: Ring,
        superseded_key: Callable[[Event], str | None],
        caches: EventCaches,
    ) -> None:
        """`superseded_key` is that of `ChannelSchemas`."""
        self._caches = caches
        self._ring = ring
        self._superseded_key = superseded_key
        self._newest: dict[str, int] = {}
        """The ring's number of the newest event with a key."""
        self._indexed = 0
        """The ring's number of the first event that is not indexed yet."""

    def is_superseded(self, event: Event, number: int) -> bool:
        """Return True if a newer event in the ring says all that the one with this number does."""
        key = self._superseded_key(event)
        if key is None:
            return False
        self._index()
        return self._newest.get(key, number) > number

    def _index(self) -> None:
        first, head = max(self._indexed, self._ring.first), self._ring.head
        for number, event in enumerate(self._ring.since(first, head - first), start=first):
            key = self._superseded_key(event)
            if key is not None:
                self._newest[key] = number
            self._caches.looked_into(event)
        self._indexed = head
        if len(self._newest) > head - self._ring.first + STALE_KEYS:
            oldest = self._ring.first
            self._newest = {key: at for key, at in self._newest.items() if at >= oldest}
