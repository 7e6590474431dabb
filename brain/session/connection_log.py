"""The line of the log for each connection that has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from brain.log_events import CONNECTION_CLOSED, CONNECTIONS_CLOSED
from brain.session.token_bucket import TokenBucket

# On average; in a burst twice as many. A line has some 300 bytes, so that the most that clients who
# come and go can make of it is 260 MB a day.
LINES_PER_SECOND = 10
# How long those beyond are counted before one line says how many there were.
SUMMARY_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedConnection:
    """What is said of one: nothing that a client has sent but its user."""

    code: int
    """The close code, of whichever side closed it."""
    seconds: float
    """How long it was open."""
    sent_bytes: int | None
    """How much was sent to the client; None if the system does not say."""
    transport: str
    wire_format: str
    user: str | None
    channels: int
    """How many it was subscribed to."""
    address: str | None
    """None unless addresses are logged."""


class ConnectionLog:
    """
    Logs how connections have ended: each, or how many.

    When thousands end at once, it costs a few microseconds to count one: the event loop goes on,
    and the log has a few lines.
    """

    def __init__(
        self, *, has_addresses: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`has_addresses`: those of clients are logged."""
        self.has_addresses = has_addresses
        self._clock = clock
        self._lines = TokenBucket(LINES_PER_SECOND)
        self._left_out: Counter[int] = Counter()
        """Of which there was no line yet, by close code."""
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def note(self, code: int) -> bool:
        """Count the end of a connection; return True if there is to be a line about it."""
        if not logger.isEnabledFor(CONNECTION_CLOSED.level):
            return False
        now = self._clock()
        if not self._left_out and self._lines.take(now) >= 0:
            return True
        if not self._left_out:
            self._since = now
            self._timer = asyncio.get_running_loop().call_later(SUMMARY_SECONDS, self.summarize)
        self._left_out[int(code)] += 1
        return False

    def write(self, closed: ClosedConnection) -> None:
        """Log the end of a connection."""
        sent = "" if closed.sent_bytes is None else f", {closed.sent_bytes} bytes sent"
        CONNECTION_CLOSED.log(
            logger,
            "a connection%s%s was closed with %d after %.1f s (%s, %s, %d channels%s)",
            "" if closed.user is None else f" of {closed.user!r}",
            "" if closed.address is None else f" from {closed.address}",
            closed.code,
            closed.seconds,
            closed.transport,
            closed.wire_format,
            closed.channels,
            sent,
            code=int(closed.code),
            seconds=round(closed.seconds, 3),
            sent_bytes=closed.sent_bytes,
            transport=closed.transport,
            format=closed.wire_format,
            user=closed.user,
            channels=closed.channels,
            address=closed.address,
        )

    def summarize(self) -> None:
        """Log how many there were without a line of their own, if there were any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        codes, self._left_out = self._left_out, Counter()
        if codes:
            by_code = {str(code): count for code, count in sorted(codes.items())}
            listed = ", ".join(f"{count} with {code}" for code, count in by_code.items())
            seconds = self._clock() - self._since
            text = "%d more connections were closed within %.1f s: %s"
            CONNECTIONS_CLOSED.log(
                logger,
                text,
                codes.total(),
                seconds,
                listed,
                count=codes.total(),
                seconds=round(seconds, 3),
                codes=by_code,
            )
