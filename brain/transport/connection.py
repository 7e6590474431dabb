"""
The transport of a session under uvicorn, once its request is over.

Most connections are idle, and there may be many: so one keeps nothing of its request, and has no
task, no queue, and no timer while nothing is under way.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableSet
from typing import Any

from brain.close_codes import CloseCode
from brain.session.session_counts import ABNORMAL
from brain.session.transport_protocol import Receiver
from brain.transport.direct import DirectSending
from brain.transport.limits import TransportLimits, stop


class Connection(asyncio.Protocol, ABC):
    """Writes for a session, and reports to it."""

    __slots__ = (
        "_connections",
        "_end_timer",
        "_limits",
        "_receiver",
        "_sending",
        "_unread_timer",
        "send_now",
        "transport",
        "write",
    )

    write: Callable[[bytes], None]
    """See `DirectSending`, as for `send_now`."""
    send_now: Callable[[bytes], int]

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: TransportLimits,
        connections: MutableSet[Any],
    ) -> None:
        """
        `connections`: those that uvicorn shuts down when it stops.

        Its `connection_lost` has to be called, also if it never adopts a receiver.
        """
        self.transport = transport
        self._sending = DirectSending(transport)
        self.write, self.send_now = self._sending.write, self._sending.send_now
        self._limits = limits
        self._connections = connections
        self._receiver: Receiver | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    def adopt(self, receiver: Receiver, *, is_paused: bool) -> bool:
        """
        Replace the protocol of the request, and report to `receiver` from now on.

        `is_paused`: writing is. Returns False if the connection is ending already: then the former
        protocol stays, and has to call `connection_lost`.
        """
        if self.transport.is_closing():
            receiver.connection_lost()
            return False
        self.transport.set_protocol(self)
        self._connections.add(self)
        self._receiver = receiver
        if is_paused:
            self.pause_writing()
        return True

    def sent_bytes(self) -> int | None:
        return self._sending.sent_bytes()

    def abort(self) -> None:
        """End the connection at once, whatever is unsent."""
        self.transport.abort()

    @abstractmethod
    def shutdown(self) -> None:
        """Say that the server stops, and end the connection; uvicorn calls it."""

    # What the event loop calls.

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        # A running timer would keep all this in memory.
        stop(self._unread_timer)
        stop(self._end_timer)
        self._detach_receiver(ABNORMAL)
        self._sending.end()

    def pause_writing(self) -> None:
        stop(self._unread_timer)
        self._unread_timer = asyncio.get_running_loop().call_later(
            self._limits.unread_timeout_seconds, self._abort_unread
        )
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        stop(self._unread_timer)
        self._unread_timer = None
        if self._receiver is not None:
            self._receiver.resume_writing()

    def _abort_unread(self) -> None:
        # No close frame would be read either: the code is for the counts alone.
        self._detach_receiver(CloseCode.SLOW_CONSUMER)
        self.abort()

    def _detach_receiver(self, code: int) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(code)

    def _abort_in(self, seconds: float) -> None:
        """Abort the connection unless it has ended by then."""
        stop(self._end_timer)
        self._end_timer = asyncio.get_running_loop().call_later(seconds, self.abort)
