"""A stream of server-sent events once its head was sent: events go straight to the socket."""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from typing import Any

from brain.close_codes import CloseCode
from brain.transport.connection import Connection
from brain.transport.event_stream_frames import EventStreamFraming
from brain.transport.http import MOST_HEAD_BYTES
from brain.transport.limits import TransportLimits

GOING_AWAY = "Brain stops or restarts"


class EventStreamConnection(Connection):
    """
    The transport of a session that sends events: an HTTP answer without an end.

    The answer ends with the connection, so requests that a client has sent behind that one are not
    answered: RFC 9112, section 9.6.
    """

    __slots__ = ("_unexpected_bytes", "framing")

    framing: EventStreamFraming

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: TransportLimits,
        connections: MutableSet[Any],
        framing: EventStreamFraming,
    ) -> None:
        super().__init__(transport, limits, connections)
        self.framing = framing
        self._unexpected_bytes = 0

    def close(self, code: CloseCode, reason: str) -> None:
        """Send the event that says why, and the end of the answer; abort if it is not read."""
        self._detach_receiver(code)
        if not self.transport.is_closing():
            self.transport.write(self.framing.end(code, reason))
            self.transport.close()
            self._abort_in(self._limits.close_seconds)

    def shutdown(self) -> None:
        if self._receiver is not None:
            self.close(self._receiver.going_away_code, GOING_AWAY)

    def data_received(self, data: bytes) -> None:
        self._unexpected_bytes += len(data)
        if self._unexpected_bytes > MOST_HEAD_BYTES:
            self.abort()
