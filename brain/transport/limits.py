"""What one client may do to its connection, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields


@dataclass
class TransportLimits:
    """What one client may do to its connection, whatever the session; all of them share these."""

    handshake_timeout_seconds: float
    """How long it may take to send the head of a request, and then the body."""
    unread_timeout_seconds: float
    """How long it may leave unread what was written to it."""
    close_seconds: float
    """How long it may take to answer a close frame."""
    frames_per_second: float
    """Rate limit of pings, pongs and fragments; burst of twice that. A session limits messages."""
    message_bytes: int
    """Of one message, or of its fragments together."""
    ping_seconds: float
    """The interval of pings, and how long it may take to answer one."""
    unread_bytes: int = 1024 * 1024
    """How much may be unread when the client makes the server answer."""
    fragments: int = 128
    """Of one message."""

    def become(self, other: TransportLimits) -> None:
        """Go on with other limits."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


def stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
