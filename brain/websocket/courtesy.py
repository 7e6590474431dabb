"""Whether a client says more than it may."""

from __future__ import annotations

from brain.websocket.allowance import Allowance

BETWEEN_WARNINGS_SECONDS = 1.0


class Courtesy:
    """How much one client has said lately."""

    __slots__ = ("_bytes", "_messages", "_warned_at", "is_warning_due")

    def __init__(self, messages_per_second: float, bytes_per_second: float) -> None:
        self._messages = Allowance(messages_per_second)
        self._bytes = Allowance(bytes_per_second)
        self._warned_at = float("-inf")
        self.is_warning_due = False
        """Whether it should be told now that it is about to say too much."""

    def allows(self, message: str, now: float) -> bool:
        """Take note of a message at `now`, in seconds; return whether it was not too much."""
        is_allowed = self._messages.take(now)
        is_allowed = self._bytes.take(now, len(message)) and is_allowed
        is_low = self._messages.is_low or self._bytes.is_low
        self.is_warning_due = is_low and now >= self._warned_at + BETWEEN_WARNINGS_SECONDS
        if self.is_warning_due:
            self._warned_at = now
        return is_allowed
