"""Pings for all connections of a server, from one timer."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

from brain.transport.limits import stop

# Into which connections are divided: those of one are pinged together.
SLOTS = 64
PAYLOAD_BYTES = 4


class Pinged(Protocol):
    """A connection that is pinged."""

    def ping(self, payload: bytes) -> None:
        """Send a ping, unless the one before has had no answer: then close the connection."""
        ...


class Pings:
    """
    Pings each connection once in an interval.

    A connection has no timer of its own: with its handle, in Python and in the event loop, that
    would take more memory than the connection does here.
    """

    def __init__(self, interval_seconds: float) -> None:
        self._slot_seconds = interval_seconds / SLOTS
        self._slots: list[set[Pinged]] = [set() for _ in range(SLOTS)]
        self._last = 0
        """The slot that was pinged last."""
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Pinged) -> int:
        """
        Ping a connection within an interval, and then once in each; return its slot.

        Those that come together, as after a restart, are not pinged together.
        """
        slot = random.randrange(SLOTS)
        self._slots[slot].add(connection)
        self._count += 1
        if self._count == 1:
            self._schedule()
        return slot

    def remove(self, connection: Pinged, slot: int) -> None:
        """Stop pinging a connection; may be called again."""
        members = self._slots[slot]
        if connection in members:
            members.remove(connection)
            self._count -= 1
            if not self._count:
                stop(self._timer)

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._slot_seconds, self._ping_next)

    def _ping_next(self) -> None:
        self._schedule()
        self._last = (self._last + 1) % SLOTS
        payload = random.randbytes(PAYLOAD_BYTES)
        for connection in list(self._slots[self._last]):
            connection.ping(payload)
