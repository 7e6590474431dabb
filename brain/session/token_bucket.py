"""A token bucket, for rate limits."""

from __future__ import annotations


class TokenBucket:
    """Allows so much per second on average, and a burst of twice that."""

    __slots__ = ("_left", "_per_second", "_taken_at")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = 2 * per_second
        self._taken_at = 0.0

    def take(self, now: float, amount: float = 1) -> float:
        """Take `amount` at `now`, in seconds; return what is left, below 0 if it was not there."""
        left = self._left + (now - self._taken_at) * self._per_second
        left = min(2 * self._per_second, left) - amount
        self._left = left if left >= 0 else left + amount
        self._taken_at = now
        return left
