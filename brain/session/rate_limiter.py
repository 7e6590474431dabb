"""The rate limit of one client: messages and bytes per second."""

from __future__ import annotations

from brain.session.token_bucket import TokenBucket

BETWEEN_RATE_WARNINGS_SECONDS = 1.0

# After so long without a message a limiter is as good as new: its buckets are full.
RESTED_SECONDS = 2.0


class RateLimiter:
    """Counts what a client sends."""

    __slots__ = ("_bytes", "_half", "_messages", "_warned_at", "is_warning_due")

    def __init__(self, messages_per_second: float, bytes_per_second: float) -> None:
        self._messages = TokenBucket(messages_per_second)
        self._bytes = TokenBucket(bytes_per_second)
        self._half = messages_per_second, bytes_per_second
        """The client is warned once less than this is left."""
        self._warned_at = float("-inf")
        self.is_warning_due = False
        """True if the client should be warned now that it is about to exceed the limit."""

    def allows(self, message_bytes: int, now: float) -> bool:
        """Count a message at `now`, in seconds; return False if it exceeds the limit."""
        messages, size = self._messages.take(now), self._bytes.take(now, message_bytes)
        is_low = messages < self._half[0] or size < self._half[1]
        self.is_warning_due = is_low and now >= self._warned_at + BETWEEN_RATE_WARNINGS_SECONDS
        if self.is_warning_due:
            self._warned_at = now
        return messages >= 0 and size >= 0
